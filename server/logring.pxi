# SPDX-License-Identifier: MIT
# The access log between a response and the file: fixed records in a bounded ring, made into lines and written outside
# of the bursts. Included by http.pyx. A line that finds the ring full is counted as lost.

cdef extern from "<arpa/inet.h>" nogil:
    const char *inet_ntop(int family, const void *address, char *out, unsigned int size)
    const int AF_INET, AF_INET6

cdef extern from "<poll.h>" nogil:
    struct pollfd:
        int fd
        short events
        short revents
    int poll(pollfd *fds, unsigned long count, int timeout_ms)
    const short POLLOUT

cdef extern from "<unistd.h>" nogil:
    ssize_t write(int fd, const void *data, size_t length)
    int64_t lseek(int fd, int64_t offset, int whence)
    int ftruncate(int fd, int64_t length)
    const int SEEK_CUR, SEEK_END

cdef enum:
    LOG_LINE_ROOM = 256             # address, time, status and size, the texts apart
    LOG_PIPE_BYTES = 4096           # PIPE_BUF: a pipe that is writable takes this much at once (pipe(7))


cdef void log_append(server_t *server, const tcb_t *conn, lent_t *text, uint32_t split, uint16_t status,
                     uint64_t body_bytes) noexcept nogil:
    cdef log_record_t *record
    if text == NULL:
        return
    if server.log_tail - server.log_head > server.log_mask:
        server.stats.log_lost += 1
        return
    record = &server.log_ring[server.log_tail & server.log_mask]
    record.second = server.second
    record.body_bytes = body_bytes
    record.text = lent_ref(text)
    record.address = conn.key.raddr
    record.split = split
    record.status = status
    server.log_tail += 1


cdef size_t log_number(uint8_t *out, uint64_t value) noexcept nogil:
    cdef uint8_t digits[20]
    cdef size_t count = 0, i
    while True:
        digits[count] = <uint8_t>(48 + value % 10)
        value //= 10
        count += 1
        if value == 0:
            break
    for i in range(count):
        out[i] = digits[count - 1 - i]
    return count


cdef size_t log_format(server_t *server, const log_record_t *record, uint8_t *out) noexcept nogil:
    """One line: at most LOG_LINE_ROOM octets and the text's."""
    cdef size_t at
    if ip_addr_is_v4(&record.address):
        inet_ntop(AF_INET, &record.address.words_be[3], <char *>out, 64)
    else:
        inet_ntop(AF_INET6, &record.address, <char *>out, 64)
    at = strlen(<char *>out)
    memcpy(out + at, b" - - ", 5)
    at += 5
    if record.second != server.log_time_second:
        write_log_time(server.log_time, record.second)
        server.log_time_second = record.second
    memcpy(out + at, server.log_time, 28)
    at += 28
    out[at] = c' '
    at += 1
    memcpy(out + at, record.text.data, record.split)
    at += record.split
    at += log_number(out + at, record.status)
    out[at] = c' '
    at += 1
    at += log_number(out + at, record.body_bytes)
    memcpy(out + at, record.text.data + record.split, record.text.length - record.split)
    return at + record.text.length - record.split


cdef uint32_t log_write(server_t *server, const uint8_t *data, size_t length) noexcept nogil:
    """The number of lines that the file took whole. A full disk or a closed pipe must not stop the server."""
    cdef size_t done = 0
    cdef ssize_t written
    server.log_errno = 0
    while done < length:
        written = write(server.log_fd, data + done, length - done)
        if written > 0:
            done += <size_t>written
        elif written == 0 or errno != EINTR:
            server.log_errno = errno if written < 0 else ENOSPC
            done -= log_cut_line(server, data, done)
            break
    return log_count_lines(data, done)


cdef size_t log_cut_line(server_t *server, const uint8_t *data, size_t done) noexcept nogil:
    """The last write ended inside a line: take that part out of the file, so that the next line does not join it.
    Returns how many bytes that is."""
    cdef size_t part = 0
    cdef int64_t end
    while part < done and data[done - 1 - part] != c'\n':
        part += 1
    if part and server.log_regular:
        end = lseek(server.log_fd, 0, SEEK_CUR)
        if end == lseek(server.log_fd, 0, SEEK_END) and ftruncate(server.log_fd, end - <int64_t>part) == 0:
            lseek(server.log_fd, 0, SEEK_END)               # if nobody else has appended to it
    return part


cdef uint32_t log_count_lines(const uint8_t *data, size_t length) noexcept nogil:
    cdef uint32_t lines = 0
    cdef size_t i
    for i in range(length):
        lines += data[i] == c'\n'
    return lines


cdef bint log_can_write(server_t *server) noexcept nogil:
    cdef pollfd wanted
    if server.log_regular:
        return True
    wanted.fd = server.log_fd
    wanted.events = POLLOUT
    wanted.revents = 0
    return poll(&wanted, 1, 0) == 1


cdef void log_drain(server_t *server) noexcept nogil:
    """Write what the ring holds. Stops where a pipe's reader is slow: the records stay."""
    cdef size_t used, room
    cdef uint32_t lines, written
    cdef log_record_t *record
    cdef size_t batch = LOG_WRITE_BYTES if server.log_regular else LOG_PIPE_BYTES
    while server.log_head != server.log_tail:
        if not log_can_write(server):
            return
        used = 0
        lines = 0
        while server.log_head != server.log_tail:
            record = &server.log_ring[server.log_head & server.log_mask]
            room = LOG_LINE_ROOM + record.text.length
            if used and used + room > batch:
                break
            used += log_format(server, record, server.log_buffer + used)
            lent_unref(record.text)
            server.log_head += 1
            lines += 1
        written = log_write(server, server.log_buffer, used)
        server.stats.log_lines += written
        server.stats.log_lost += lines - written
