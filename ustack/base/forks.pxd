# SPDX-License-Identifier: MIT
# What a process that fork() has made finds: copies of its parent's objects over the same files and devices.
#
# Whoever would send or write what the parent sends and writes as well inherits from Forked, and says in `forked` what
# its copy leaves to the parent.
#
# Above: link/use, link/capture. Below: nothing.


cdef class Forked:
    cdef void *older                    # Forked: the list of all, until their memory goes
    cdef void *newer
    # In the child, before fork() returns there. Any thread may have forked; no other one exists. It may not fail.
    cdef void forked(self) noexcept
