# SPDX-License-Identifier: MIT
# Queues through records that a table owns and an index names: put at the end, taken from the front. A record has a link
# for each queue that it can be in; index 0 is no record, and ends a queue. A link is 4 bytes, where the hook of a list
# whose records leave from anywhere (base/ilist) is 8.
#
#     queue  first ──▶ link ──▶ link ──▶ 0
#            last ──────────────▲
#
# Where the link of a record lies is said by a function, iqueue_link_at_t, which the caller passes with its table. If it
# is inline, no call through a pointer is left.
#
# It must not know what a record is, and allocates nothing. Whether a record is in a queue its owner knows: one that is
# put in twice makes a ring. Below: nothing. Above: whoever has records wait for their turn.

from libc.stdint cimport uint32_t

ctypedef struct iqueue_t:                   # all zero: empty
    uint32_t first
    uint32_t last

ctypedef uint32_t *(*iqueue_link_at_t)(const void *table, uint32_t index) noexcept nogil


cdef inline void iqueue_append(iqueue_t *queue, iqueue_link_at_t link_at, const void *table,
                               uint32_t index) noexcept nogil:
    link_at(table, index)[0] = 0
    if queue.last:
        link_at(table, queue.last)[0] = index
    else:
        queue.first = index
    queue.last = index


# The first record, taken off; 0: none.
cdef inline uint32_t iqueue_take(iqueue_t *queue, iqueue_link_at_t link_at, const void *table) noexcept nogil:
    cdef uint32_t index = queue.first
    if index:
        queue.first = link_at(table, index)[0]
        if queue.first == 0:
            queue.last = 0
    return index


# Take out the record behind `before`; 0: the first.
cdef inline void iqueue_remove(iqueue_t *queue, iqueue_link_at_t link_at, const void *table, uint32_t before,
                               uint32_t index) noexcept nogil:
    cdef uint32_t following = link_at(table, index)[0]
    if before:
        link_at(table, before)[0] = following
    else:
        queue.first = following
    if following == 0:
        queue.last = before
