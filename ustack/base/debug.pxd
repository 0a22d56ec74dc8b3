# SPDX-License-Identifier: MIT
# One switch: `ensure(condition)` aborts with file and line in the debug, trace and asan builds
# (USTACK_DEBUG, set by setup.py) and costs nothing in release.

cdef extern from *:
    """
    #ifdef USTACK_DEBUG
      #include <stdio.h>
      #include <stdlib.h>
      #define ustack_ensure(condition) do { if (!(condition)) { \
          fprintf(stderr, "%s:%d: ensure(%s) failed\\n", __FILE__, __LINE__, #condition); abort(); } } while (0)
      #define USTACK_IS_DEBUG 1
    #else
      #define ustack_ensure(condition) do { } while (0)
      #define USTACK_IS_DEBUG 0
    #endif
    """
    void ensure "ustack_ensure"(bint condition) noexcept nogil
    const bint IS_DEBUG "USTACK_IS_DEBUG"
