# SPDX-License-Identifier: MIT
# openat2(2): open a path that must not lead out of a directory, whatever its links say.
#
# The C library has no wrapper for it. Read first: openat2(2), RESOLVE_BENEATH and RESOLVE_NO_MAGICLINKS.
# Above: files (.py), filetable. Below: base/posix.

# A descriptor of `path` under directory_fd, close-on-exec; or -errno: EXDEV when the path or a link in it leaves the
# directory, or a link is absolute; ENOSYS where the kernel does not know the call (before Linux 5.6).
cdef int beneath_open(int directory_fd, const char *path, int flags) noexcept nogil
