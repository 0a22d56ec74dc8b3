# SPDX-License-Identifier: MIT
# The right to drive a link: one stack, one capture or one end of a wire at a time.
#
# Above: engine/owner, tee, bridge/wire. Below: device, closed, base/forks.

from ustack.base.forks cimport Forked
from ustack.link.device cimport Link


# The right ends with this object.
cdef class LinkUse(Forked):
    cdef Link link
    cdef bint ends_in_child          # writer: the user. fork() leaves the link to the parent: in the child it is closed

# Raises ValueError for a link that is closed or in use.
cdef LinkUse link_use(Link link)
