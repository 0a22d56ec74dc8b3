# SPDX-License-Identifier: MIT
# Open files as the data path sees them: bodies to lend, and whether the disk still agrees. Included by http.pyx.
#
# A file_t never moves; what was remembered about it carries its generation. Dropping one gives back only this table's
# reference: responses in flight keep the octets they began with.

cdef extern from "<sys/stat.h>" nogil:
    struct timespec:
        long tv_sec
        long tv_nsec
    struct stat_t "stat":
        unsigned long st_dev
        unsigned long st_ino
        long st_size
        unsigned int st_mode
        timespec st_mtim
        timespec st_ctim
    int fstatat(int directory_fd, const char *path, stat_t *out, int flags)
    int fstat(int fd, stat_t *out)
    bint S_ISREG(unsigned int mode)


cdef extern from "<unistd.h>" nogil:
    long syscall(long number, ...)
    ssize_t read(int fd, void *out, size_t length)
    int close(int fd)

cdef extern from "<fcntl.h>" nogil:
    const int O_RDONLY, O_NONBLOCK, O_NOCTTY, O_CLOEXEC

cdef extern from "<sys/syscall.h>" nogil:
    const long SYS_openat2

cdef extern from "<linux/openat2.h>" nogil:
    struct open_how:
        uint64_t flags
        uint64_t mode
        uint64_t resolve
    const uint64_t RESOLVE_BENEATH
    const uint64_t RESOLVE_NO_MAGICLINKS

cdef enum:
    PATH_BYTES = 4096                   # PATH_MAX, path_resolution(7)
    OPEN_IN_GENERAL = 1                 # files.py has to look


cdef bint is_absent(int error) noexcept nogil:
    """Nothing has that name, as long as nobody makes it."""
    return error == ENOENT or error == ENOTDIR or error == ENAMETOOLONG


cdef int file_open(server_t *server, const char *path, stat_t *found, lent_t **body) noexcept nogil:
    """The usual file, with one openat2(2): regular, small, below the root without an absolute link, with no .gz beside
    it. 0: *found and *body (NULL: empty) are it. -errno: is_absent. OPEN_IN_GENERAL: everything else."""
    cdef open_how how
    cdef stat_t neighbour
    cdef char name[PATH_BYTES + 4]
    cdef size_t length = strlen(path), at = 0
    cdef ssize_t part = 0
    cdef long fd
    body[0] = NULL
    if server.plain_open or length >= PATH_BYTES:
        return OPEN_IN_GENERAL
    memset(&how, 0, sizeof(how))
    how.flags = <uint64_t>(O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC)
    how.resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS
    fd = syscall(SYS_openat2, server.root_fd, path, &how, sizeof(how))
    if fd < 0:
        if is_absent(errno):
            return -errno
        if errno == ENOSYS or errno == EPERM:
            server.plain_open = 1
        return OPEN_IN_GENERAL
    if fstat(<int>fd, found) != 0 or not S_ISREG(found.st_mode) or <uint64_t>found.st_size > server.small_file_bytes:
        close(<int>fd)
        return OPEN_IN_GENERAL
    while at < <size_t>found.st_size:
        part = read(<int>fd, server.read_buffer + at, <size_t>found.st_size - at)
        if part > 0:
            at += <size_t>part
        elif part == 0 or errno != EINTR:
            break
    close(<int>fd)
    if at < <size_t>found.st_size:
        return OPEN_IN_GENERAL          # cut meanwhile
    memcpy(name, path, length)
    memcpy(name + length, b".gz", 4)
    if fstatat(server.root_fd, name, &neighbour, 0) == 0 or not is_absent(errno):
        return OPEN_IN_GENERAL
    if at:
        body[0] = lent_from_copy(server.read_buffer, at)
        if body[0] == NULL:
            return OPEN_IN_GENERAL
    return 0


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


cdef file_t *file_lookup(server_t *server, const uint8_t *path, size_t length, uint64_t hashed) noexcept nogil:
    """The live file of a request's path, which has this SipHash. NULL: none is."""
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
    bucket[0] = <uint32_t>(file - server.files) + 1
    file.checked_ns = server.now_ns
    file.referenced = 1
    file.live = 1
    server.file_count += 1


cdef file_t *file_take(server_t *server, size_t path_length, uint64_t hashed, const char *name, const stat_t *found,
                       lent_t *body) noexcept nogil:
    """Take what file_open found into the table, with body's reference. NULL without memory; body is given back then.

    name: of the file, below the root. It begins with the path that the request has.
    """
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
    file = &server.files[file_make_room(server, <uint64_t>found.st_size, <uint64_t>found.st_size)]
    file.has_gzip = 0
    file.described = 0
    file.variant[1].path = gzip
    variant = &file.variant[0]
    variant.path = plain
    variant.identity.device, variant.identity.inode = found.st_dev, found.st_ino
    variant.identity.size = <uint64_t>found.st_size
    variant.identity.mtime_ns = found.st_mtim.tv_sec * 1_000_000_000 + found.st_mtim.tv_nsec
    variant.identity.ctime_ns = found.st_ctim.tv_sec * 1_000_000_000 + found.st_ctim.tv_nsec
    variant.body = body
    if body != NULL:
        server.held_bytes += body.length
        server.copied_bytes += body.length
    file_appear(server, file, path_length, hashed)
    return file


cdef void file_drop(server_t *server, file_t *file) noexcept nogil:
    cdef uint32_t *link = &server.file_buckets[file.path_hash & server.file_bucket_mask]
    cdef uint32_t slot = <uint32_t>(file - server.files) + 1
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
    server.free_files[server.file_limit - server.file_count - 1] = <uint32_t>(file - server.files)


cdef bint variant_unchanged(server_t *server, variant_t *variant) noexcept nogil:
    """Compare with the disk. A file cut short marks its body damaged for everybody who sends from it: a cut within
    the last page raises no SIGBUS, so lent.pyx cannot have seen it."""
    cdef stat_t now
    cdef identity_t *then = &variant.identity
    if variant.path == NULL:
        return True
    if fstatat(server.root_fd, variant.path, &now, 0) != 0 or not S_ISREG(now.st_mode):
        return then.inode == 0
    if (now.st_ino == then.inode and now.st_dev == then.device and <uint64_t>now.st_size == then.size
            and now.st_mtim.tv_sec * 1_000_000_000 + now.st_mtim.tv_nsec == then.mtime_ns
            and now.st_ctim.tv_sec * 1_000_000_000 + now.st_ctim.tv_nsec == then.ctime_ns):
        return True
    if (variant.mapped and now.st_ino == then.inode and now.st_dev == then.device
            and <uint64_t>now.st_size < then.size):
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


cdef inline bint file_fresh(server_t *server, file_t *file) noexcept nogil:
    """As it is on the disk? Asked with two stat(2), once a burst as long as this second's budget lasts, so that a quiet
    server sees every change at once and a busy one pays a bounded part of its time; after that once in revalidate_ns.
    """
    cdef uint64_t age_ns = server.now_ns - file.checked_ns
    if age_ns == 0 or (age_ns < server.revalidate_ns and server.checks_left == 0):
        return True
    if server.checks_left:
        server.checks_left -= 1
    return file_check(server, file)


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


cdef bint decision_valid(server_t *server, decision_t *decision) noexcept nogil:
    cdef file_t *file
    if decision.file == NO_FILE:
        return decision.missing == NULL or still_missing(server, decision)
    file = &server.files[decision.file]
    if file.generation != decision.generation or not file_fresh(server, file):
        return False
    file.referenced = 1
    return True


cdef uint32_t file_make_room(server_t *server, uint64_t bytes_wanted, uint64_t copied_wanted) noexcept nogil:
    """A free slot, to be taken at once (`appear`), after dropping what was not used lately until `bytes_wanted` fit as
    well (or nothing is left). copied_wanted: of them, those that are copies."""
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


cdef bint responses_make_room(server_t *server, uint64_t wanted, uint32_t keep, bint whole) noexcept nogil:
    """Will a copy of `wanted` bytes fit in max_response_bytes? What is only remembered makes room: heads, then files.

    keep: a file that stays, or NO_FILE. whole: it is the response to a file; an eighth is not for others, so that
    clients who ask for ever other ranges and read none cannot keep out who asks for files.
    """
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
