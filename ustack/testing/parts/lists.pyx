# SPDX-License-Identifier: MIT
"""The intrusive list (base/ilist) and the queue (base/iqueue) with their records in an array that moves, and a count of
how often one is looked at.

Two lists, or queues, share the array, as the classes of a table do. Below: base/ilist, base/iqueue. Not for the data
path.
"""

from libc.stdint cimport uint32_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from ustack.base.ilist cimport ilist_append, ilist_hook_t, ilist_insert, ilist_prepend, ilist_remove, ilist_t
from ustack.base.iqueue cimport iqueue_append, iqueue_remove, iqueue_t, iqueue_take

cdef enum:
    LISTS = 2

ctypedef struct record_t:
    uint32_t number                 # what a list must leave alone
    ilist_hook_t order

ctypedef struct table_t:
    record_t *records
    uint32_t count
    uint32_t looks


cdef inline ilist_hook_t *hook(const void *table, uint32_t index) noexcept nogil:
    (<table_t *>table).looks += 1
    return &(<const table_t *>table).records[index].order


cdef inline uint32_t *link(const void *table, uint32_t index) noexcept nogil:
    return &hook(table, index).next


cdef class Table:
    """Records 1 to `count`, in no list yet."""

    cdef table_t table

    def __cinit__(self, uint32_t count) -> None:
        memset(&self.table, 0, sizeof(table_t))
        self.move(count)

    def __dealloc__(self) -> None:
        free(self.table.records)

    def move(self, uint32_t count) -> None:
        """Put the records into new memory, with room for `count`, and spoil the old one."""
        cdef record_t *records = <record_t *>malloc((<size_t>count + 1) * sizeof(record_t))
        cdef uint32_t i
        if records == NULL:
            raise MemoryError
        memset(records, 0xDD, (<size_t>count + 1) * sizeof(record_t))
        if self.table.records != NULL:
            memcpy(records, self.table.records, (<size_t>self.table.count + 1) * sizeof(record_t))
            memset(self.table.records, 0xDD, (<size_t>self.table.count + 1) * sizeof(record_t))
            free(self.table.records)
        for i in range(self.table.count + 1 if self.table.count else 0, count + 1):
            records[i].number = i
        self.table.records = records
        self.table.count = count

    def numbers(self) -> list[int]:
        """What the records hold beside their hooks."""
        return [self.table.records[i].number for i in range(self.table.count + 1)]

    @property
    def looks(self) -> int:
        """How often somebody has asked where a hook is."""
        return self.table.looks


cdef class Lists(Table):
    """Two empty lists. `which` is 0 or 1."""

    cdef ilist_t lists[LISTS]

    def __cinit__(self, uint32_t count) -> None:
        memset(self.lists, 0, sizeof(self.lists))

    def append(self, uint32_t which, uint32_t index) -> None:
        """Put the record at the end."""
        ilist_append(&self.lists[which], hook, &self.table, index)

    def prepend(self, uint32_t which, uint32_t index) -> None:
        """Put the record at the beginning."""
        ilist_prepend(&self.lists[which], hook, &self.table, index)

    def insert(self, uint32_t which, uint32_t index, uint32_t successor) -> None:
        """Put the record in front of another; 0: at the end."""
        ilist_insert(&self.lists[which], hook, &self.table, index, successor)

    def remove(self, uint32_t which, uint32_t index) -> None:
        """Take the record out."""
        ilist_remove(&self.lists[which], hook, &self.table, index)

    def forwards(self, uint32_t which) -> list[int]:
        """The records from first to last."""
        found = []
        cdef uint32_t index = self.lists[which].first
        while index:
            found.append(index)
            index = self.table.records[index].order.next
        return found

    def backwards(self, uint32_t which) -> list[int]:
        """The records from last to first."""
        found = []
        cdef uint32_t index = self.lists[which].last
        while index:
            found.append(index)
            index = self.table.records[index].order.previous
        return found


cdef class Queues(Table):
    """Two empty queues. `which` is 0 or 1."""

    cdef iqueue_t queues[LISTS]

    def __cinit__(self, uint32_t count) -> None:
        memset(self.queues, 0, sizeof(self.queues))

    def append(self, uint32_t which, uint32_t index) -> None:
        """Put the record at the end."""
        iqueue_append(&self.queues[which], link, &self.table, index)

    def take(self, uint32_t which) -> int:
        """The first record, taken off; 0: none."""
        return iqueue_take(&self.queues[which], link, &self.table)

    def remove(self, uint32_t which, uint32_t before, uint32_t index) -> None:
        """Take out the record behind `before`; 0: the first."""
        iqueue_remove(&self.queues[which], link, &self.table, before, index)

    def records(self, uint32_t which) -> list[int]:
        """From first to last, which is where the queue says that it ends."""
        found = []
        cdef uint32_t index = self.queues[which].first, last = 0
        while index:
            found.append(index)
            last = index
            index = self.table.records[index].order.next
        if last != self.queues[which].last:
            raise AssertionError(f"{found} ends with {self.queues[which].last}")
        return found
