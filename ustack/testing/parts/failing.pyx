# SPDX-License-Identifier: MIT
"""Calls of one module to the C library that fail: memory that runs out, a device that answers with an error.

    with Failing("ustack.buf.chunks", "realloc", errno.ENOMEM, after=1) as calls:
        ...                                 # its second realloc() returns NULL
    assert calls.failed == 1

A module calls a function of the C library through an entry of its own table of addresses (the global offset table,
which the dynamic section of the ELF file describes). Here that entry is replaced, for one module, one function and the
length of a `with`: others, the interpreter among them, go on calling the function itself.

One Failing at a time; functions of up to six integers and pointers, variadic ones like ioctl() included. What fails
is not called: nothing is done that a test would have to undo.

Read first: ld.so(8), dlinfo(3), elf(5) "Dynamic sections". Below: base/posix. Not for the data path.
"""

from libc.stdint cimport UINT64_MAX, uint64_t, uintptr_t

from ustack.base.posix cimport (
    _SC_PAGESIZE, DT_JMPREL, DT_NULL, DT_PLTRELSZ, DT_RELA, DT_RELASZ, DT_STRTAB, DT_SYMTAB, PROT_READ, PROT_WRITE,
    RTLD_DEFAULT, RTLD_DI_LINKMAP, RTLD_LAZY, RTLD_NOLOAD, Elf64_Dyn, Elf64_Rela, Elf64_Sym, dlclose, dlinfo, dlopen,
    dlsym, link_map, mprotect, sysconf,
)

import importlib
import os

# C, so that a trace build does not trace it: what happens between a failed call and a look at errno would change it.
cdef extern from *:
    """
    #include <errno.h>

    typedef long (*ustack_called_t)(long, long, long, long, long, long);
    typedef struct {
        ustack_called_t original;
        unsigned long long after, times, failed;
        long result;
        int error;
    } ustack_failing_t;

    static ustack_failing_t ustack_failing;

    static long ustack_fail(long a, long b, long c, long d, long e, long f)
    {
        if (ustack_failing.after > 0) {
            ustack_failing.after--;
            return ustack_failing.original(a, b, c, d, e, f);
        }
        if (ustack_failing.times == 0)
            return ustack_failing.original(a, b, c, d, e, f);
        ustack_failing.times--;
        ustack_failing.failed++;
        errno = ustack_failing.error;
        return ustack_failing.result;
    }
    """
    ctypedef struct ustack_failing_t:
        void *original
        uint64_t after
        uint64_t times
        uint64_t failed
        long result
        int error
    ustack_failing_t ustack_failing
    long ustack_fail(long, long, long, long, long, long) nogil

RESULTS = {"malloc": 0, "calloc": 0, "realloc": 0, "strdup": 0}
busy = False


cdef void **entry_of(link_map *loaded, bytes name) except? NULL:
    """Where a loaded module keeps the address of a function that it calls; NULL: it does not call it."""
    cdef Elf64_Dyn *dynamic = loaded.l_ld
    cdef Elf64_Rela *tables[2]
    cdef uint64_t sizes[2]
    cdef Elf64_Sym *symbols = NULL
    cdef const char *names = NULL
    cdef const char *wanted = name
    cdef uintptr_t found = 0
    cdef uint64_t at
    cdef int table
    sizes[0] = sizes[1] = 0
    tables[0] = tables[1] = NULL
    while dynamic.d_tag != DT_NULL:
        if dynamic.d_tag == DT_JMPREL:
            tables[0] = <Elf64_Rela *>dynamic.d_un.d_ptr
        elif dynamic.d_tag == DT_PLTRELSZ:
            sizes[0] = dynamic.d_un.d_val
        elif dynamic.d_tag == DT_RELA:
            tables[1] = <Elf64_Rela *>dynamic.d_un.d_ptr
        elif dynamic.d_tag == DT_RELASZ:
            sizes[1] = dynamic.d_un.d_val
        elif dynamic.d_tag == DT_SYMTAB:
            symbols = <Elf64_Sym *>dynamic.d_un.d_ptr
        elif dynamic.d_tag == DT_STRTAB:
            names = <const char *>dynamic.d_un.d_ptr
        dynamic += 1
    for table in range(2):
        for at in range(sizes[table] // sizeof(Elf64_Rela)):
            if <bytes>(names + symbols[tables[table][at].r_info >> 32].st_name) == wanted:
                found = loaded.l_addr + tables[table][at].r_offset
    return <void **>found


cdef class Failing:
    """module: the name of one that is compiled.  function: what it calls.  error: errno afterwards.
    after: calls that succeed first.  times: calls that fail then; None: all.  result: what a failed call returns; None:
    NULL of an allocator, otherwise -1 (which is MAP_FAILED as well).

    LookupError: the module does not call that function, so nothing could fail.
    """

    cdef void **entry
    cdef void *before
    cdef str module, function
    cdef object error, after, times, result
    cdef readonly uint64_t failed
    "Calls that have failed; once the `with` is left."

    def __init__(
        self,
        module: str,
        function: str,
        error: int,
        *,
        after: int = 0,
        times: int | None = None,
        result: int | None = None,
    ) -> None:
        self.module, self.function = module, function
        self.error, self.after, self.times = error, after, times
        self.result = RESULTS.get(function, -1) if result is None else result

    def __enter__(self) -> "Failing":
        """From here on calls fail."""
        global busy
        cdef link_map *loaded = NULL
        cdef bytes path = os.fsencode(importlib.import_module(self.module).__file__)
        cdef bytes name = os.fsencode(self.function)
        cdef void *handle = dlopen(path, RTLD_LAZY | RTLD_NOLOAD)
        if busy:
            raise RuntimeError("one Failing at a time")
        if handle == NULL:
            raise LookupError(f"{self.module} is not compiled")
        try:
            if dlinfo(handle, RTLD_DI_LINKMAP, &loaded) != 0:
                raise LookupError(f"{self.module}: nothing is known of it")
            self.entry = entry_of(loaded, name)
            if self.entry == NULL:          # as mmap() and fstat() are called where file offsets have 64 bits
                name += b"64"
                self.entry = entry_of(loaded, name)
        finally:
            dlclose(handle)
        if self.entry == NULL:
            raise LookupError(f"{self.module} does not call {self.function}()")
        ustack_failing.original = dlsym(RTLD_DEFAULT, name)
        ustack_failing.after = self.after
        ustack_failing.times = UINT64_MAX if self.times is None else self.times
        ustack_failing.failed = 0
        ustack_failing.result = self.result
        ustack_failing.error = self.error
        # The loader may have made the table read-only (ld(1), "-z relro"). It is left writable, as without that option.
        cdef uintptr_t page = <uintptr_t>self.entry & ~<uintptr_t>(sysconf(_SC_PAGESIZE) - 1)
        if mprotect(<void *>page, sysconf(_SC_PAGESIZE), PROT_READ | PROT_WRITE) != 0:
            raise OSError(f"{self.module}: its table of addresses cannot be written")
        self.before = self.entry[0]
        self.entry[0] = <void *>ustack_fail
        busy = True
        return self

    def __exit__(self, *exception: object) -> None:
        """The function itself is called again."""
        global busy
        self.entry[0] = self.before
        self.failed = ustack_failing.failed
        busy = False
