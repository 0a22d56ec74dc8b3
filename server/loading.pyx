# SPDX-License-Identifier: MIT
"""Opening files the general way (contract: loading.pxd)."""

import os

from cpython.bytes cimport PyBytes_AS_STRING
from libc.errno cimport errno
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memset, strdup

from ustack.base.bytestring cimport data_of, size_of
from ustack.base.posix cimport fstatat, stat_t
from ustack.base.prng cimport siphash13
from ustack.buf.lent cimport lent_from_copy, lent_from_file, lent_t
from ustack.server.fetching cimport FILE_AWAITED, file_fetch, file_warm
from ustack.server.filetable cimport (
    OPEN_IN_GENERAL, file_appear, file_fresh, file_lookup, file_make_room, file_take, is_absent, variant_clear)
from ustack.server.records cimport FILE_UNITS, LOOK_UNITS, NO_FILE, SMALL_FILE_UNITS, file_t, identity_t, variant_t

from ustack.server import files, response as responses


cdef lent_t *lent_from_bytes(bytes data) except NULL:
    cdef lent_t *lent = lent_from_copy(data_of(data), size_of(data))
    if lent == NULL:
        raise MemoryError
    return lent


cdef object identity_of(const identity_t *identity):
    return files.Identity(identity.device, identity.inode, identity.size, identity.mtime_ns, identity.ctime_ns)


cdef bytes read_whole(int fd, Py_ssize_t size):
    """A small file's first `size` bytes, or fewer if it was cut."""
    parts = []
    cdef Py_ssize_t left = size
    while left > 0:
        part = os.read(fd, left)
        if not part:
            break
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


cdef class Loader:
    """Opens files for one server. directory: the document root. Raises OSError."""

    def __init__(self, directory, uint32_t max_files):
        self.root = files.DocumentRoot(directory)
        self.resources = [None] * max_files

    cdef int64_t find(self, bytes path) except -1:
        cdef stat_t found
        cdef lent_t *body = NULL
        cdef int verdict = OPEN_IN_GENERAL
        cdef size_t length = <size_t>len(path)
        cdef uint64_t hashed = siphash13(self.s.hash_key, data_of(path), length)
        cdef file_t *file = file_lookup(self.s, data_of(path), length, hashed)
        if file != NULL and file_fresh(self.s, file):
            file.referenced = 1
            return file - self.s.files
        cdef bint directory = length == 0 or path.endswith(b"/")
        cdef bytes name = path + files.INDEX if directory else path
        if not self.s.skip_file_open:
            verdict = file_fetch(self.s, length, hashed, PyBytes_AS_STRING(name), &found, &body)
        self.s.skip_file_open = 0
        self.s.units += SMALL_FILE_UNITS if verdict == 0 else 2 * LOOK_UNITS if verdict < 0 else FILE_UNITS
        if verdict == FILE_AWAITED:
            return AWAITED
        if verdict == 0:
            file = file_take(self.s, length, hashed, PyBytes_AS_STRING(name), &found, body)
            if file == NULL:
                raise MemoryError
            return file - self.s.files
        if verdict < 0 and directory and path:
            name = path[:len(path) - 1]  # without it no index is there; with it, the general way says 403
            if fstatat(self.s.root_fd, PyBytes_AS_STRING(name), &found, 0) == 0 or not is_absent(errno):
                verdict = OPEN_IN_GENERAL
        if verdict < 0 and path:
            self.absent = name
            return ABSENT
        for _ in range(3):
            with self.root.open(path) as opened:
                if self.warm(length, hashed, opened):
                    return AWAITED
                loaded = self.load(length, hashed, opened)
            if loaded is not None:
                return loaded
        raise responses.Refusal(503)    # it shrinks each time it is looked at

    cdef bint warm(self, size_t path_length, uint64_t hashed, opened) except -1:
        """Wait for what was opened to be in memory?"""
        cdef bytes name = opened.resource.plain.path
        return file_warm(self.s, path_length, hashed, PyBytes_AS_STRING(name), opened.fd,
                         opened.gzip_fd if opened.resource.gzip else -1)

    cdef object describe(self, uint32_t number):
        cdef file_t *file = &self.s.files[number]
        if not file.described:
            self.resources[number] = files.describe(<bytes>file.variant[0].path, identity_of(&file.variant[0].identity),
                                                    identity_of(&file.variant[1].identity))
            file.described = 1
        return self.resources[number]

    cdef object load(self, size_t path_length, uint64_t hashed, opened):
        """Take an opened resource into the table. None: it was cut meanwhile."""
        cdef variant_t variants[2]
        cdef uint32_t number
        cdef file_t *file
        memset(variants, 0, sizeof(variants))
        resource = opened.resource
        try:
            complete = (self.fill(&variants[0], resource.plain.path, resource.plain.identity, opened.fd)
                        and self.fill(&variants[1], resource.plain.path + files.GZIP_SUFFIX, resource.gzip_identity,
                                      opened.gzip_fd if resource.gzip else -1))
            present = [variant.size for variant in (resource.plain, resource.gzip) if variant is not None]
            size = sum(present)
            copied = sum(one for one in present if one <= self.s.small_file_bytes)
            number = file_make_room(self.s, size, copied) if complete else NO_FILE
        except BaseException:
            variant_clear(self.s, &variants[0])
            variant_clear(self.s, &variants[1])
            raise
        if number == NO_FILE:
            variant_clear(self.s, &variants[0])
            variant_clear(self.s, &variants[1])
            return None
        file = &self.s.files[number]
        file.variant[0] = variants[0]
        file.variant[1] = variants[1]
        file.has_gzip = resource.gzip is not None
        file.described = 1
        self.resources[number] = resource
        file_appear(self.s, file, path_length, hashed)
        return number

    cdef bint lends_descriptors(self) noexcept:
        """Does the transport of who asks now send files by them?"""
        return (self.s.transport != NULL and self.s.transport.files != NULL
                and self.s.transport.files.by_descriptor)

    cdef bint fill(self, variant_t *variant, bytes path, identity, int fd) except -1:
        """Name and bytes of one variant; no bytes without a descriptor. False: fewer are there than stat said."""
        cdef lent_t *body = NULL
        variant.path = strdup(PyBytes_AS_STRING(path))
        if variant.path == NULL:
            raise MemoryError
        variant.identity.device, variant.identity.inode = identity.device, identity.inode
        variant.identity.size = identity.size
        variant.identity.mtime_ns, variant.identity.ctime_ns = identity.mtime_ns, identity.ctime_ns
        if fd < 0 or identity.size == 0:
            return True
        if identity.size <= self.s.small_file_bytes:
            body = lent_from_bytes(read_whole(fd, identity.size))
        else:
            body = lent_from_file(fd, self.lends_descriptors())
            variant.mapped = 1
        variant.body = body
        self.s.held_bytes += body.length
        if not variant.mapped:
            self.s.copied_bytes += body.length
        return body.length >= variant.identity.size
