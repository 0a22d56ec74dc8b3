# SPDX-License-Identifier: MIT
"""Table of open files, and what the disk says about them (contract: filetable.pxd)."""

from libc.errno cimport EINTR, ENAMETOOLONG, ENOENT, ENOSYS, ENOTDIR, EPERM, errno
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy, memset, strdup, strlen

from ustack.base.posix cimport (
    O_NOCTTY, O_NONBLOCK, O_RDONLY, S_ISREG, close_descriptor, fstat, fstatat, read, stat_t, timespec)
from ustack.buf.lent cimport lent_from_copy, lent_t, lent_unref
from ustack.server.beneath cimport beneath_open
from ustack.server.headtable cimport head_forget
from ustack.server.ready cimport ready_free
from ustack.server.records cimport FULL_FORMS, LOOK_UNITS, decision_t, file_t, identity_t, server_t, variant_t


cdef int files_begin(server_t *server, uint32_t limit) noexcept nogil:
    cdef uint32_t buckets = 2, index
    while buckets < limit * 2:
        buckets *= 2
    server.file_limit = limit
    server.file_bucket_mask = buckets - 1
    server.files = <file_t *>calloc(limit, sizeof(file_t))
    server.file_buckets = <uint32_t *>calloc(buckets, sizeof(uint32_t))
    server.free_files = <uint32_t *>malloc(limit * sizeof(uint32_t))
    server.read_buffer = <uint8_t *>malloc(server.small_file_bytes + 1)
    if (server.files == NULL or server.file_buckets == NULL or server.free_files == NULL
            or server.read_buffer == NULL):
        return -1
    for index in range(limit):
        server.free_files[index] = limit - 1 - index
    return 0


cdef void files_end(server_t *server) noexcept nogil:
    cdef uint32_t index
    if server.files != NULL and server.free_files != NULL:
        for index in range(server.file_limit):
            file_drop(server, &server.files[index])
    free(server.files)
    free(server.file_buckets)
    free(server.free_files)
    free(server.read_buffer)
    server.files = NULL
    server.file_buckets = NULL
    server.free_files = NULL
    server.read_buffer = NULL


cdef inline uint64_t size_of(const stat_t *found) noexcept nogil:
    return <uint64_t>found.st_size


cdef int64_t nanoseconds(const timespec *at) noexcept nogil:
    """Since 1970. A file system can hold times beyond 2262, 64 bits of these cannot: they are then the last, or the
    first, that have room (files.identity_of says the same)."""
    cdef int64_t bound_s = 9_223_372_036
    if at.tv_sec >= bound_s:
        return bound_s * 1_000_000_000 - 1
    if at.tv_sec < -bound_s:
        return -bound_s * 1_000_000_000
    return at.tv_sec * 1_000_000_000 + at.tv_nsec


cdef bint is_absent(int error) noexcept nogil:
    return error == ENOENT or error == ENOTDIR or error == ENAMETOOLONG


cdef int file_look(server_t *server, const char *path, stat_t *found, int *opened) noexcept nogil:
    cdef stat_t neighbour
    cdef char name[PATH_BYTES + 4]
    cdef size_t length = strlen(path)
    cdef int fd
    if server.plain_open or length >= PATH_BYTES:
        return OPEN_IN_GENERAL
    fd = beneath_open(server.root_fd, path, O_RDONLY | O_NONBLOCK | O_NOCTTY)
    if fd < 0:
        if is_absent(-fd):
            return fd
        if fd == -ENOSYS or fd == -EPERM:
            server.plain_open = 1
        return OPEN_IN_GENERAL
    memcpy(name, path, length)
    memcpy(name + length, b".gz", 4)
    if (fstat(fd, found) != 0 or not S_ISREG(found.st_mode) or size_of(found) > server.small_file_bytes
            or fstatat(server.root_fd, name, &neighbour, 0) == 0 or not is_absent(errno)):
        close_descriptor(fd)
        return OPEN_IN_GENERAL
    opened[0] = fd
    return 0


cdef int file_open(server_t *server, const char *path, stat_t *found, lent_t **body) noexcept nogil:
    cdef size_t at = 0
    cdef ssize_t part = 0
    cdef int fd = -1, verdict
    body[0] = NULL
    verdict = file_look(server, path, found, &fd)
    if verdict != 0:
        return verdict
    while at < size_of(found):
        part = read(fd, server.read_buffer + at, size_of(found) - at)
        if part > 0:
            at += <size_t>part
        elif part == 0 or errno != EINTR:
            break
    close_descriptor(fd)
    if at < size_of(found):
        return OPEN_IN_GENERAL          # cut meanwhile
    if at:
        body[0] = lent_from_copy(server.read_buffer, at)
        if body[0] == NULL:
            return OPEN_IN_GENERAL
    return 0


# ---------------------------------------------------------------- the table

cdef file_t *file_lookup(server_t *server, const uint8_t *path, size_t length, uint64_t hashed) noexcept nogil:
    cdef uint32_t slot = server.file_buckets[hashed & server.file_bucket_mask]
    cdef file_t *file
    while slot:
        file = &server.files[slot - 1]
        if file.path_hash == hashed and file.path_length == length and memcmp(file.variant[0].path, path, length) == 0:
            return file
        slot = file.next
    return NULL


cdef void file_appear(server_t *server, file_t *file, size_t path_length, uint64_t hashed) noexcept nogil:
    """Its variants are filled in: from now on it is found."""
    cdef uint32_t *bucket = &server.file_buckets[hashed & server.file_bucket_mask]
    file.path_length = <uint32_t>path_length
    file.path_hash = hashed
    file.next = bucket[0]
    bucket[0] = file_number(server, file) + 1
    file.checked_ns = server.now_ns
    file.referenced = 1
    file.live = 1
    server.file_count += 1


cdef file_t *file_take(server_t *server, size_t path_length, uint64_t hashed, const char *name, const stat_t *found,
                       lent_t *body) noexcept nogil:
    cdef size_t length = strlen(name)
    cdef char *plain = strdup(name)
    cdef char *gzip = <char *>malloc(length + 4)
    cdef file_t *file
    cdef variant_t *variant
    if plain == NULL or gzip == NULL:
        free(plain)
        free(gzip)
        if body != NULL:
            lent_unref(body)
        return NULL
    memcpy(gzip, name, length)
    memcpy(gzip + length, b".gz", 4)
    file = &server.files[file_make_room(server, size_of(found), size_of(found))]
    file.has_gzip = 0
    file.described = 0
    file.variant[1].path = gzip
    variant = &file.variant[0]
    variant.path = plain
    variant.identity.device, variant.identity.inode = found.st_dev, found.st_ino
    variant.identity.size = size_of(found)
    variant.identity.mtime_ns = nanoseconds(&found.st_mtim)
    variant.identity.ctime_ns = nanoseconds(&found.st_ctim)
    variant.body = body
    if body != NULL:
        server.held_bytes += body.length
        server.copied_bytes += body.length
    file_appear(server, file, path_length, hashed)
    return file


cdef void variant_clear(server_t *server, variant_t *variant) noexcept nogil:
    cdef int form
    for form in range(FULL_FORMS):
        if variant.full[form].lent != NULL:
            server.held_bytes -= variant.full[form].lent.length
            server.full_bytes -= variant.full[form].lent.length
            ready_free(&variant.full[form])
    if variant.body != NULL:
        server.held_bytes -= variant.body.length
        if not variant.mapped:
            server.copied_bytes -= variant.body.length
        lent_unref(variant.body)
    free(variant.path)
    memset(variant, 0, sizeof(variant_t))


cdef void file_drop(server_t *server, file_t *file) noexcept nogil:
    cdef uint32_t *link = &server.file_buckets[file.path_hash & server.file_bucket_mask]
    cdef uint32_t slot = file_number(server, file) + 1
    if not file.live:
        return
    while link[0] != slot:
        link = &server.files[link[0] - 1].next
    link[0] = file.next
    variant_clear(server, &file.variant[0])
    variant_clear(server, &file.variant[1])
    file.live = 0
    file.generation += 1
    server.file_count -= 1
    server.free_files[server.file_limit - server.file_count - 1] = file_number(server, file)


cdef uint32_t file_make_room(server_t *server, uint64_t bytes_wanted, uint64_t copied_wanted) noexcept nogil:
    cdef file_t *file
    while server.file_count == server.file_limit or (
            server.file_count and (server.held_bytes + bytes_wanted > server.max_held_bytes
                                   or server.copied_bytes + copied_wanted > server.max_copied_bytes)):
        file = &server.files[server.file_hand]
        server.file_hand = (server.file_hand + 1) % server.file_limit
        if file.live and file.referenced:
            file.referenced = 0
        else:
            file_drop(server, file)
    return server.free_files[server.file_limit - server.file_count - 1]


# ---------------------------------------------------------------- against the disk

cdef bint variant_unchanged(server_t *server, variant_t *variant) noexcept nogil:
    """Compare with the disk. A file cut short marks its body damaged for everybody who sends from it: a cut within
    the last page raises no SIGBUS, so lent.pyx cannot have seen it."""
    cdef stat_t now
    cdef identity_t *then = &variant.identity
    if variant.path == NULL:
        return True
    if fstatat(server.root_fd, variant.path, &now, 0) != 0 or not S_ISREG(now.st_mode):
        return then.inode == 0
    if (now.st_ino == then.inode and now.st_dev == then.device and size_of(&now) == then.size
            and nanoseconds(&now.st_mtim) == then.mtime_ns and nanoseconds(&now.st_ctim) == then.ctime_ns):
        return True
    if (variant.mapped and now.st_ino == then.inode and now.st_dev == then.device
            and size_of(&now) < then.size):
        variant.body.damaged = 1
    return False


cdef bint file_check(server_t *server, file_t *file) noexcept nogil:
    """Compare with the disk now. False: it was dropped."""
    cdef bint plain = variant_unchanged(server, &file.variant[0])
    cdef bint gzip = variant_unchanged(server, &file.variant[1])
    cdef int which
    server.units += 2 * LOOK_UNITS
    for which in range(2):
        if file.variant[which].body != NULL and file.variant[which].body.damaged:
            plain = False
    if plain and gzip:
        file.checked_ns = server.now_ns
        return True
    server.stats.files_changed += 1
    file_drop(server, file)
    return False


cdef void files_check_some(server_t *server, uint32_t count) noexcept nogil:
    cdef uint32_t looked = 0
    cdef file_t *file
    while count and looked < server.file_limit:
        file = &server.files[server.file_hand]
        server.file_hand = (server.file_hand + 1) % server.file_limit
        looked += 1
        if file.live:
            file_check(server, file)
            count -= 1


cdef void files_forget(server_t *server) noexcept nogil:
    cdef uint32_t index
    for index in range(server.file_limit):
        file_drop(server, &server.files[index])


cdef bint still_missing(server_t *server, decision_t *decision) noexcept nogil:
    """A remembered 404, looked up again as often as file_fresh looks at a file."""
    cdef uint64_t age_ns = server.now_ns - decision.checked_ns
    cdef stat_t found
    if age_ns == 0 or (age_ns < server.revalidate_ns and server.checks_left == 0):
        return True
    if server.checks_left:
        server.checks_left -= 1
    server.units += LOOK_UNITS
    if fstatat(server.root_fd, decision.missing, &found, 0) == 0 or not is_absent(errno):
        return False
    decision.checked_ns = server.now_ns
    return True


# ---------------------------------------------------------------- room for responses

cdef bint responses_make_room(server_t *server, uint64_t wanted, uint32_t keep, bint whole) noexcept nogil:
    cdef uint64_t limit = server.max_response_bytes
    cdef uint64_t limit_besides = limit - (limit >> 3)
    cdef uint32_t looked = 0
    wanted += sizeof(lent_t)
    while server.decision_count and (
            server.ledger.bytes + wanted > limit
            or (not whole and server.ledger.bytes - server.full_bytes + wanted > limit_besides)):
        if server.decision_hand >= server.decision_count:
            server.decision_hand = 0
        head_forget(server, server.decision_hand)
    if not whole and server.ledger.bytes - server.full_bytes + wanted > limit_besides:
        return False
    while server.ledger.bytes + wanted > limit and looked < server.file_limit:
        if server.file_hand != keep:
            file_drop(server, &server.files[server.file_hand])
        server.file_hand = (server.file_hand + 1) % server.file_limit
        looked += 1
    return server.ledger.bytes + wanted <= limit
