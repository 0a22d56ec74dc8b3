# SPDX-License-Identifier: MIT
# One switch: `ensure(condition)` aborts with file and line in the debug, trace and asan builds
# (USTACK_DEBUG, set by setup.py) and costs nothing in release. poison() marks memory that nobody may touch until
# unpoison(): the address sanitizer stops whoever does; without it they are nothing.

cdef extern from *:
    """
    #ifdef USTACK_DEBUG
      #include <stdio.h>
      #include <stdlib.h>
      #define ustack_ensure(condition) do { if (!(condition)) { \
          fprintf(stderr, "%s:%d: ensure(%s) failed\\n", __FILE__, __LINE__, #condition); abort(); } } while (0)
      #define USTACK_IS_DEBUG 1
    #else
      #define ustack_ensure(condition) do { (void)sizeof(condition); } while (0)
      #define USTACK_IS_DEBUG 0
    #endif
    """
    void ensure "ustack_ensure"(bint condition) noexcept nogil
    const bint IS_DEBUG "USTACK_IS_DEBUG"


cdef extern from *:
    """
    #ifdef __SANITIZE_ADDRESS__
      #include <sanitizer/asan_interface.h>
      #define ustack_poison(data, length) __asan_poison_memory_region(data, length)
      #define ustack_unpoison(data, length) __asan_unpoison_memory_region(data, length)
    #else
      #define ustack_poison(data, length) ((void)(data), (void)(length))
      #define ustack_unpoison(data, length) ((void)(data), (void)(length))
    #endif
    """
    void poison "ustack_poison"(const void *data, size_t length) noexcept nogil
    void unpoison "ustack_unpoison"(const void *data, size_t length) noexcept nogil
