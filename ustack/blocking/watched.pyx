# SPDX-License-Identifier: MIT
# cython: annotation_typing=False
"""Registrations with pollers, and the lists in which they stand. See watched.pxd."""

from libc.stdint cimport uint32_t


cdef void watches_wake(const watch_t *first, uint32_t key) noexcept:
    cdef watch_t *each = <watch_t *>first
    while each != NULL:
        if is_armed(each) and (key == 0 or each.events & key) and each.list == NULL:
            ready_add(each.home, each)
        each = each.next


cdef void ready_add(ready_t *list, watch_t *watch) noexcept:
    watch.list = list
    watch.ready_next = NULL
    watch.ready_before = list.last
    if list.last != NULL:
        list.last.ready_next = watch
    else:
        list.first = watch
    list.last = watch


cdef void ready_remove(watch_t *watch) noexcept:
    cdef ready_t *list = watch.list
    if list == NULL:
        return
    if watch.ready_before != NULL:
        watch.ready_before.ready_next = watch.ready_next
    else:
        list.first = watch.ready_next
    if watch.ready_next != NULL:
        watch.ready_next.ready_before = watch.ready_before
    else:
        list.last = watch.ready_before
    watch.list = NULL


cdef void ready_join(ready_t *target, ready_t *source) noexcept:
    cdef watch_t *each
    while source.first != NULL:
        each = source.first
        ready_remove(each)
        ready_add(target, each)


cdef void watch_end(watch_t *watch) noexcept:
    """Out of both lists."""
    ready_remove(watch)
    if watch.at != NULL:
        watch.at[0] = watch.next
        if watch.next != NULL:
            watch.next.at = watch.at
        watch.at = NULL


cdef class Watch:
    """One object registered with one Poller."""

    cdef int leave(self) except -1:
        watch_end(&self.c)
        if self.watched is not None:
            self.watched.wishes_changed()
        if self.registered != NULL:
            registered = <dict>self.registered
            self.registered = NULL
            registered.pop(self.target, None)
        return 0

    def __dealloc__(self) -> None:
        watch_end(&self.c)


cdef class Watched:
    """What a Poller can watch."""

    def __dealloc__(self) -> None:
        while self.watches != NULL:         # its Watches keep it, but the garbage collector takes both apart
            watch_end(self.watches)

    cdef uint32_t events_now(self) noexcept:
        return 0

    cdef void await_room(self) noexcept:
        pass

    cdef void wishes_changed(self) noexcept:
        pass

    cdef void add_watch(self, Watch watch) noexcept:
        watch.c.watch = <void *>watch
        watch.c.next = self.watches
        watch.c.at = &self.watches
        if self.watches != NULL:
            self.watches.at = &watch.c.next
        self.watches = &watch.c
        self.wishes_changed()

    cdef list unwatch(self):
        cdef list left = []
        cdef Watch watch
        while self.watches != NULL:
            watch = <Watch>self.watches.watch
            left.append(watch)
            watch.leave()
        return left
