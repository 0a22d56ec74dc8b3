# SPDX-License-Identifier: MIT
"""Files on their way into memory (contract: fetching.pxd)."""

from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memset, strdup

from ustack.application cimport CALL_OK, transport_t
from ustack.base.posix cimport F_DUPFD_CLOEXEC, close_descriptor, fcntl, fstat, stat_t
from ustack.buf.lent cimport lent_ref, lent_t, lent_unfilled, lent_unref
from ustack.server.filetable cimport OPEN_IN_GENERAL, file_check, file_look, file_open, file_take
from ustack.server.records cimport LOAD_DONE, LOAD_FREE, LOAD_READING, file_t, load_t, server_t


# ---------------------------------------------------------------- who waits for what

cdef bint is_awaited(server_t *server, size_t path_length, uint64_t hashed, const char *name) noexcept nogil:
    """Somebody else's load is of the same path: it is under way, or those who wait for it are about to be answered."""
    cdef uint32_t number
    cdef load_t *load
    if server.loads == NULL:
        return False
    for number in range(<uint32_t>LOADS_FIRST, <uint32_t>LOADS_END):
        load = &server.loads[number]
        if ((load.state == LOAD_READING or (load.state == LOAD_DONE and load.waiting.first))
                and load.path_hash == hashed and load.path_length == path_length
                and memcmp(load.name, name, path_length) == 0):
            server.awaited = number
            return True
    return False


cdef uint32_t load_free_one(server_t *server) noexcept nogil:
    """The number of a load_t that is nobody's. 0: all are under way, or it cannot be remembered."""
    cdef uint32_t number
    cdef load_t *load
    if server.loads == NULL:
        server.loads = <load_t *>calloc(LOADS_END, sizeof(load_t))
        if server.loads == NULL:
            return 0
    for number in range(<uint32_t>LOADS_FIRST, <uint32_t>LOADS_END):
        load = &server.loads[number]
        if load.state == LOAD_DONE and load.waiting.first == 0:
            load_end(load)
        if load.state == LOAD_FREE:
            return number
    return 0


cdef uint32_t warm_loads(const server_t *server) noexcept nogil:
    """How many larger files are being read."""
    cdef uint32_t number, count = 0
    for number in range(<uint32_t>LOADS_FIRST, <uint32_t>LOADS_END):
        if server.loads[number].state == LOAD_READING and not server.loads[number].kept:
            count += 1
    return count


cdef uint32_t queue_next(server_t *server) noexcept nogil:
    """The queue whose first one may begin: of larger files while they have less than their least share. 0: none."""
    cdef bint small = server.loads[<int>LOADS_QUEUE].waiting.first != 0
    cdef uint32_t warm
    if load_free_one(server) == 0:
        return 0
    if server.loads[<int>WARM_QUEUE].waiting.first:
        warm = warm_loads(server)
        if warm < <uint32_t>(LOADS - WARM_LOADS) or (warm < <uint32_t>WARM_LOADS and not small):
            return WARM_QUEUE
    return LOADS_QUEUE if small else 0


cdef bint must_queue(server_t *server, uint32_t queue) noexcept nogil:
    """Whoever was there before comes first. server.awaited is the queue then."""
    cdef bint waits
    if server.loads == NULL:
        return False
    waits = load_free_one(server) == 0 or (queue == WARM_QUEUE and warm_loads(server) >= <uint32_t>WARM_LOADS)
    if not waits and server.admitted != queue:
        waits = server.loads[queue].waiting.first != 0 or queue_next(server) not in (0, queue)
    if waits:
        server.awaited = queue
    return waits


cdef uint32_t next_waiting(server_t *server) noexcept nogil:
    cdef uint32_t index = 0
    if server.loads_first or server.undecided.first == 0:
        index = load_next(server)
    return index if index else server.undecided.first


cdef uint32_t load_next(server_t *server) noexcept nogil:
    cdef uint32_t number
    if server.loads == NULL:
        return 0
    for number in range(<uint32_t>LOADS_FIRST, <uint32_t>LOADS_END):
        if server.loads[number].state == LOAD_DONE and server.loads[number].waiting.first:
            return server.loads[number].waiting.first
    return server.loads[queue_next(server)].waiting.first


# ---------------------------------------------------------------- one load

cdef load_t *load_new(server_t *server, size_t path_length, uint64_t hashed, const char *name,
                      uint64_t buffer_bytes) noexcept nogil:
    """NULL without memory."""
    cdef uint32_t number = load_free_one(server)
    cdef load_t *load
    if number == 0:
        return NULL
    load = &server.loads[number]
    memset(load, 0, sizeof(load_t))
    load.fd[0] = load.fd[1] = -1
    load.path_length = <uint32_t>path_length
    load.path_hash = hashed
    load.name = strdup(name)
    load.body = lent_unfilled(buffer_bytes)
    if load.name == NULL or load.body == NULL:
        load_end(load)
        return NULL
    return load


cdef void load_end(load_t *load) noexcept nogil:
    """Everything that it holds; nobody waits for it."""
    load_shut(load)
    free(load.name)
    load.name = NULL
    load.state = LOAD_FREE


cdef void load_shut(load_t *load) noexcept nogil:
    cdef int which
    for which in range(2):
        if load.fd[which] >= 0:
            close_descriptor(load.fd[which])
            load.fd[which] = -1
    if load.body != NULL:
        lent_unref(load.body)
        load.body = NULL


cdef bint load_begin(server_t *server, load_t *load) noexcept nogil:
    """False: it cannot be read this way now, and has ended."""
    if load_step(server, server.transport, load) <= 0:
        load_end(load)
        return False
    load.state = LOAD_READING
    server.awaited = <uint32_t>(load - server.loads)
    server.stats.loads += 1
    return True


cdef int load_step(server_t *server, const transport_t *transport, load_t *load) noexcept nogil:
    """Have the next bytes read. 1, 0: there are none, or -1: they cannot be."""
    cdef uint64_t length
    cdef int fd
    while load.at == load.size[load.which] or load.fd[load.which] < 0:
        if load.which == 1:
            return 0
        load.which = 1
        load.at = 0
    length = load.size[load.which] - load.at
    if not load.kept and length > load.body.length:
        length = load.body.length
    fd = load.fd[load.which]
    if transport.files.read(transport, server.app, fd, lent_ref(load.body), load.at if load.kept else 0, length,
                            load.at, <uint32_t>(load - server.loads)) != CALL_OK:
        lent_unref(load.body)
        return -1
    load.fd[load.which] = -1
    return 1


# ---------------------------------------------------------------- the beginning

cdef int file_fetch(server_t *server, size_t path_length, uint64_t hashed, const char *name, stat_t *found,
                    lent_t **body) noexcept nogil:
    cdef load_t *load
    cdef int fd = -1, verdict
    if not fetches(server):
        return file_open(server, name, found, body)
    body[0] = NULL
    if is_awaited(server, path_length, hashed, name):
        return FILE_AWAITED
    verdict = file_look(server, name, found, &fd)
    if verdict != 0:
        return verdict
    if found.st_size == 0 or found.st_size > FETCH_MOST:
        close_descriptor(fd)
        return OPEN_IN_GENERAL if found.st_size else 0
    if must_queue(server, LOADS_QUEUE):     # only who has something to be read
        close_descriptor(fd)
        return FILE_AWAITED
    load = load_new(server, path_length, hashed, name, <uint64_t>found.st_size)
    if load == NULL:
        close_descriptor(fd)
        return file_open(server, name, found, body)
    load.kept = 1
    load.found = found[0]
    load.fd[0] = fd
    load.size[0] = <uint64_t>found.st_size
    return FILE_AWAITED if load_begin(server, load) else file_open(server, name, found, body)


cdef bint file_warm(server_t *server, size_t path_length, uint64_t hashed, const char *name, int fd,
                    int gzip_fd) noexcept nogil:
    cdef load_t *load
    if not fetches(server):
        return False
    if is_awaited(server, path_length, hashed, name) or must_queue(server, WARM_QUEUE):
        return True
    load = load_new(server, path_length, hashed, name, WARM_BYTES)
    if load == NULL:
        return False
    warm_variant(load, 0, fd)
    warm_variant(load, 1, gzip_fd)
    return load_begin(server, load)


cdef void warm_variant(load_t *load, int which, int fd) noexcept nogil:
    cdef stat_t found
    if fd < 0 or fstat(fd, &found) != 0:
        return
    load.size[which] = min(<uint64_t>found.st_size, <uint64_t>WARM_MOST)
    load.fd[which] = fcntl(fd, F_DUPFD_CLOEXEC, 0)


# ---------------------------------------------------------------- the end

cdef void file_came(server_t *server, const transport_t *transport, uint32_t token, int fd, lent_t *into,
                    int64_t taken) noexcept nogil:
    cdef load_t *load
    cdef int step = -1
    lent_unref(into)
    if server.loads == NULL:        # the server has been closed, and its last connection has ended
        if fd >= 0:
            close_descriptor(fd)
        return
    load = &server.loads[token]
    load.fd[load.which] = fd
    if taken > 0 and not server.closing:
        load.at += <uint64_t>taken
        if load.kept or load.waiting.first:
            step = load_step(server, transport, load)
        else:
            step = 0                # nobody wants the rest
    if step <= 0:
        load_done(server, transport, load, step == 0)


cdef void load_done(server_t *server, const transport_t *transport, load_t *load, bint complete) noexcept nogil:
    cdef file_t *file
    cdef lent_t *body
    if not complete:
        server.stats.loads_failed += 1
    elif load.kept:
        body = load.body
        load.body = NULL
        file = file_take(server, load.path_length, load.path_hash, load.name, &load.found, body)
        if file != NULL:
            file_check(server, file)
    load_shut(load)
    load.state = LOAD_DONE
    if any_waiting(server):
        transport.want_hand_over(transport, server.app)


cdef void loads_end(server_t *server) noexcept nogil:
    cdef uint32_t number
    if server.loads == NULL:
        return
    for number in range(<uint32_t>LOADS_FIRST, <uint32_t>LOADS_END):
        if server.loads[number].state != LOAD_FREE:
            load_end(&server.loads[number])
    free(server.loads)
    server.loads = NULL
