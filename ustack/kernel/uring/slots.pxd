# SPDX-License-Identifier: MIT
# The records' life: slots, what has come, what goes out, and the lists. Body: slots.pyx.
#
# It must not: make requests. Above: requests, completions, strategy. Below: records, buffers.

from libc.stdint cimport int32_t, uint8_t, uint32_t

from ustack.base.posix cimport iovec
from ustack.buf.lent cimport lent_t
from ustack.kernel.uring.records cimport outgoing_t, slot_t, uring_t

cdef slot_t *slot_at(const uring_t *self, uint32_t index) noexcept nogil
# Of a descriptor; NULL: it was not added.
cdef slot_t *slot_of(const uring_t *self, int fd) noexcept nogil
# NULL without memory.
cdef slot_t *slot_new(uring_t *self, int fd) noexcept nogil
# Its descriptor may be closed, and the number given to another.
cdef void slot_forget(uring_t *self, slot_t *slot) noexcept nogil
# Closed, and nothing of it is in the kernel any more.
cdef void slot_free(uring_t *self, slot_t *slot) noexcept nogil

# Requests are to be made for it; it has something to tell.
cdef void todo_add(uring_t *self, slot_t *slot) noexcept nogil
cdef slot_t *todo_take(uring_t *self) noexcept nogil
cdef void ready_add(uring_t *self, slot_t *slot) noexcept nogil
cdef slot_t *ready_take(uring_t *self) noexcept nogil
# It waits for a buffer; as many as there are buffers are put on the todo list again.
cdef void starved_add(uring_t *self, slot_t *slot) noexcept nogil
cdef void starved_release(uring_t *self) noexcept nogil
# Is there anything that its owner wants to hear now?
cdef bint slot_has_news(const slot_t *slot) noexcept nogil

# A buffer with bytes, or an accepted descriptor. -1: without memory; the caller keeps it.
cdef int item_append(uring_t *self, slot_t *slot, int32_t number, uint32_t length) noexcept nogil
# Copy and consume: how many bytes. out NULL: consume alone.
cdef uint32_t items_read(uring_t *self, slot_t *slot, uint8_t *out, size_t length) noexcept nogil
# The oldest accepted descriptor, or -1.
cdef int item_accepted(uring_t *self, slot_t *slot) noexcept nogil
# Give the buffers back: the bytes are copied. Beyond the bound, or without memory, the connection fails (FAILED).
cdef void items_copy(uring_t *self, slot_t *slot) noexcept nogil
# All that waits is dropped.
cdef void items_drop(uring_t *self, slot_t *slot) noexcept nogil

cdef outgoing_t *outgoing_at(const uring_t *self, uint32_t index) noexcept nogil
# Index, or 0 without memory. Takes a reference to each that is lent.
cdef uint32_t outgoing_new(uring_t *self, slot_t *slot, const iovec *vector, lent_t **lent,
                           uint32_t count) noexcept nogil
cdef void outgoing_free(uring_t *self, uint32_t index) noexcept nogil
