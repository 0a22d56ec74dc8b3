# SPDX-License-Identifier: MIT
# Doubly linked lists through records that a table owns and an index names. A record has a hook for each list that it
# can be in; index 0 is no record, and ends a list. Indices, so that a table may move when it grows, and a hook is 8
# bytes.
#
#     list   first ──▶ hook ──▶ hook ──▶ 0
#            0 ◀────── hook ◀── hook ◀── last
#
# Where the hook of a record lies is said by a function, ilist_hook_at_t, which the caller passes with its table. If it
# is inline, no call through a pointer is left.
#
# It must not know what a record is, and allocates nothing. A hook that is in no list has no meaning: whether a record
# is in one, and in which, its owner knows. Debug builds abort on a hook whose neighbours do not know it.
#
# Not for the timing wheel (base/wheel: a timer is taken out without knowing its bucket, so the heads are nodes of a
# ring), and not where records are only taken from the front: base/iqueue, one index instead of two.
# Below: base/debug. Above: whoever keeps an order of records.

from libc.stdint cimport uint32_t

from ustack.base.debug cimport ensure

ctypedef struct ilist_hook_t:               # 8 bytes, within a record
    uint32_t previous
    uint32_t next

ctypedef struct ilist_t:                    # all zero: empty
    uint32_t first
    uint32_t last

ctypedef ilist_hook_t *(*ilist_hook_at_t)(const void *table, uint32_t index) noexcept nogil


# Put a record in front of `successor`, which is in the list; 0: at the end.
cdef inline void ilist_insert(ilist_t *list, ilist_hook_at_t hook_at, const void *table, uint32_t index,
                              uint32_t successor) noexcept nogil:
    cdef ilist_hook_t *hook = hook_at(table, index)
    cdef uint32_t previous = hook_at(table, successor).previous if successor else list.last
    hook.previous = previous
    hook.next = successor
    if previous:
        hook_at(table, previous).next = index
    else:
        list.first = index
    if successor:
        hook_at(table, successor).previous = index
    else:
        list.last = index


cdef inline void ilist_append(ilist_t *list, ilist_hook_at_t hook_at, const void *table,
                              uint32_t index) noexcept nogil:
    ilist_insert(list, hook_at, table, index, 0)


cdef inline void ilist_prepend(ilist_t *list, ilist_hook_at_t hook_at, const void *table,
                               uint32_t index) noexcept nogil:
    ilist_insert(list, hook_at, table, index, list.first)


# Take out a record that is in the list.
cdef inline void ilist_remove(ilist_t *list, ilist_hook_at_t hook_at, const void *table,
                              uint32_t index) noexcept nogil:
    cdef const ilist_hook_t *hook = hook_at(table, index)
    ensure((hook_at(table, hook.previous).next if hook.previous else list.first) == index)
    ensure((hook_at(table, hook.next).previous if hook.next else list.last) == index)
    if hook.previous:
        hook_at(table, hook.previous).next = hook.next
    else:
        list.first = hook.next
    if hook.next:
        hook_at(table, hook.next).previous = hook.previous
    else:
        list.last = hook.previous
