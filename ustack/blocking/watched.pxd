# SPDX-License-Identifier: MIT
# What a Poller watches, and the two lists in which a registration (watch_t) stands. Body: watched.pyx.
#
#     Watched (connection, backlog)            Poller
#       watches ─▶ watch_t ─▶ watch_t            ready ─▶ watch_t ─▶ watch_t ...
#                  those of each poller                   what has news: all that poll() looks at
#
# It is epoll's own scheme, and the bits are epoll's (base/posix). Something happens to a connection: watches_wake puts
# its watches into their pollers' ready lists, with a key as the kernel's wake-ups have one (EPOLLIN for data, EPOLLOUT
# for room, 0 for a change of state: for everybody, because a change may be an end). poll() asks each watch of the list
# what holds (events_now), reports it, and keeps those in the list that are level-triggered. So its work is what is
# ready, whatever is registered, and an edge is one wake-up.
#
# A watch_t is part of a Watch, which its Poller keeps, and which keeps what it watches. The lists are pointers into
# records, in C: whoever goes first leaves them (with the GIL, and no bytecode in between), so that nobody has to be
# found. It must not: know what a connection is. Above: backlog, endpoint, sockets, poller. Below: nothing.

from libc.stdint cimport uint32_t

from ustack.base.posix cimport EPOLLET, EPOLLONESHOT

ctypedef struct watch_t:
    watch_t *next               # of what it watches
    watch_t **at                # what points here in that list; NULL: it watches nothing any more
    watch_t *ready_next
    watch_t *ready_before
    ready_t *list               # that it is in; NULL: in none
    ready_t *home               # its poller's
    void *watch                 # the Watch
    uint32_t events             # of epoll: what is reported, and how

ctypedef struct ready_t:
    watch_t *first
    watch_t *last

# Put those watches into their pollers' ready lists that want one of the key's events; key 0: all that are armed.
cdef void watches_wake(const watch_t *first, uint32_t key) noexcept
cdef void ready_add(ready_t *list, watch_t *watch) noexcept
cdef void ready_remove(watch_t *watch) noexcept
# What is in `source` goes behind what is in `target`.
cdef void ready_join(ready_t *target, ready_t *source) noexcept


# Not disarmed by EPOLLONESHOT.
cdef inline bint is_armed(const watch_t *watch) noexcept:
    return watch.events & ~(EPOLLET | EPOLLONESHOT) != 0


# A registration: what poll() gives back, and the lists it is in.
cdef class Watch:
    cdef watch_t c
    cdef Watched watched
    cdef object target                      # what was registered
    cdef object data                        # what poll() gives back for it; None: the target
    cdef void *registered                   # the Poller's dict {target: Watch}, while it is in it
    # Watch it no longer, and be found by nobody.
    cdef int leave(self) except -1


# What can be watched.
cdef class Watched:
    cdef watch_t *watches                   # of all pollers
    # What holds now, as poll() of a socket tells it: EPOLLIN, EPOLLOUT, EPOLLPRI, EPOLLRDHUP, EPOLLHUP, EPOLLERR.
    cdef uint32_t events_now(self) noexcept
    # Somebody waits for EPOLLOUT, which does not hold: wake with it once it does.
    cdef void await_room(self) noexcept
    # Its watches, or what they want, are others now.
    cdef void wishes_changed(self) noexcept
    cdef void add_watch(self, Watch watch) noexcept
    # No poller watches it any more: the Watches, to be let go outside of the gate, because what they hold may be the
    # end of something that uses the stack.
    cdef list unwatch(self)
