# SPDX-License-Identifier: MIT
"""Counter names, made from the one enum in counters.pxd."""


def counter_names() -> tuple[str, ...]:
    """Lower-case names in index order, without the closing COUNTER_COUNT."""
    members = sorted(counter_t, key=int)
    return tuple(member.name.lower() for member in members if member.name != "COUNTER_COUNT")


cdef dict counters_as_dict(const counters_t *counters):
    """Every counter by name. Takes the GIL's time: for observers, not for the data path."""
    cdef int index
    names = counter_names()
    return {names[index]: counters.value[index] for index in range(<int>COUNTER_COUNT)}
