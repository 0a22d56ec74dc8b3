# SPDX-License-Identifier: MIT
# The congestion controls of this process, by name. Only the control side looks here (with the GIL held): a connection
# has its control's number, and its TCP the tables by the same numbers (recovery/control.pxd).
#
# Controls are registered when their modules are imported, and stay. The first one is NewReno: what a connection falls
# back to when there is no memory for another's record. A stack that is not told otherwise has CUBIC (RFC 9438 section
# 1: the most widely deployed one).
#
# Above: recovery, engine, blocking, cli. Below: contract, defaults, the controls.

from ustack.tcp.cc.contract cimport cc_ops_t

cdef enum:
    CC_FIRST = 0                    # the number of NewReno
    CC_ERR_UNKNOWN = -1             # no control has that name
    CC_ERR_TAKEN = -2               # another table has it
    CC_ERR_FULL = -3                # CC_MAX controls are registered
    CC_ERR_BAD = -4                 # no name, one that is too long, or a record of more than CC_STATE_BYTES_MAX

# Register a control and fill in what it leaves NULL; its number. ops must live as long as the process. Again: the same
# number.
cdef int cc_register(cc_ops_t *ops) noexcept
# The number of a control by its name, or CC_ERR_UNKNOWN.
cdef int cc_find(const char *name) noexcept
# The table of a number that cc_register or cc_find has given.
cdef const cc_ops_t *cc_table(int number) noexcept nogil
# Default bodies alone: of a connection whose control has not begun (CC_WAITING). late: it is one that begins late.
cdef const cc_ops_t *cc_default_table(bint late) noexcept nogil
# The number of the control that a caller asks for. Raises ValueError, which lists the names there are.
cdef int cc_number(object name) except -1
