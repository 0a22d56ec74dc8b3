# SPDX-License-Identifier: MIT
"""The congestion controls of this process, by name. See registry.pxd.

A new control: a cimport and a line at the end of this file.
"""

from libc.string cimport strcmp, strlen

from ustack.tcp.cc.bbr cimport bbr_ops
from ustack.tcp.cc.contract cimport CC_MAX, CC_NAME_MAX, CC_STATE_BYTES_MAX
from ustack.tcp.cc.cubic cimport cubic_ops
from ustack.tcp.cc.defaults cimport cc_fill_defaults
from ustack.tcp.cc.newreno cimport newreno_ops


cdef cc_ops_t *TABLES[CC_MAX]
cdef int COUNT = 0
cdef cc_ops_t[2] DEFAULTS                   # zeroed: nothing but default bodies, no record. By begins_late
DEFAULTS[0].name = DEFAULTS[1].name = b""
DEFAULTS[1].begins_late = True
cc_fill_defaults(&DEFAULTS[0])
cc_fill_defaults(&DEFAULTS[1])


cdef int cc_find(const char *name) noexcept:
    cdef int number
    for number in range(COUNT):
        if strcmp(TABLES[number].name, name) == 0:
            return number
    return CC_ERR_UNKNOWN


cdef int cc_register(cc_ops_t *ops) noexcept:
    global COUNT
    cdef int number
    if (ops.name == NULL or not 0 < strlen(ops.name) <= CC_NAME_MAX
            or ops.state_bytes > CC_STATE_BYTES_MAX):
        return CC_ERR_BAD
    number = cc_find(ops.name)
    if number >= 0:
        return number if TABLES[number] == ops else CC_ERR_TAKEN
    if COUNT == CC_MAX:
        return CC_ERR_FULL
    cc_fill_defaults(ops)
    TABLES[COUNT] = ops
    COUNT += 1
    return COUNT - 1


cdef const cc_ops_t *cc_table(int number) noexcept nogil:
    return TABLES[number]


cdef const cc_ops_t *cc_default_table(bint late) noexcept nogil:
    return &DEFAULTS[1 if late else 0]


cdef int cc_number(object name) except -1:
    cdef int number
    cdef bytes wanted
    if not isinstance(name, str):
        raise ValueError(f"cc={name!r}: there is no such setting; cc is a name: {', '.join(names())}")
    wanted = (<str>name).encode("utf-8", "replace")
    number = cc_find(wanted) if b"\0" not in wanted else CC_ERR_UNKNOWN
    if number < 0:
        raise ValueError(f"cc={name!r}: there is no such congestion control; there are: {', '.join(names())}")
    return number


def names() -> tuple[str, ...]:
    """The congestion controls there are: the one that connections fall back to, the default one, the others."""
    cdef int number
    return tuple([TABLES[number].name.decode() for number in range(COUNT)])


def state_bytes(name: str) -> int:
    """Bytes of a control's record. Raises ValueError for a name that is none."""
    return TABLES[cc_number(name)].state_bytes


cc_register(newreno_ops())                  # CC_FIRST
cc_register(cubic_ops())                    # what a Stack has that names none
cc_register(bbr_ops())
