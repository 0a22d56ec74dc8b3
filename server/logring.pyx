# SPDX-License-Identifier: MIT
"""Ring of the access log, and the writer of its lines (contract: logring.pxd)."""

from libc.errno cimport EINTR, ENOSPC, errno
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, strlen

from ustack.base.posix cimport (
    AF_INET, AF_INET6, POLLOUT, SEEK_CUR, SEEK_END, ftruncate, inet_ntop, lseek, pollfd, ppoll, timespec, write)
from ustack.base.types cimport ip_addr_is_v4, ip_addr_t
from ustack.buf.lent cimport lent_ref, lent_t, lent_unref
from ustack.server.dates cimport write_log_time
from ustack.server.numerals cimport write_decimal

cdef enum:
    LOG_LINE_ROOM = 256             # address, time, status and size, the texts apart
    LOG_WRITE_BYTES = 65536         # a batch. One line may be longer: texts are bounded by accesslog, far below this.
    LOG_PIPE_BYTES = 4096           # PIPE_BUF: a pipe that is writable takes this much at once (pipe(7))


cdef int log_begin(log_t *log, uint32_t lines) noexcept nogil:
    log.fd = -1
    log.time_second = -1
    log.mask = lines - 1
    log.ring = <log_record_t *>calloc(lines, sizeof(log_record_t))
    log.buffer = <uint8_t *>malloc(2 * LOG_WRITE_BYTES)
    return 0 if log.ring != NULL and log.buffer != NULL else -1


cdef void log_end(log_t *log) noexcept nogil:
    while log.head != log.tail:
        lent_unref(log.ring[log.head & log.mask].text)
        log.head += 1
    free(log.ring)
    free(log.buffer)
    log.ring = NULL
    log.buffer = NULL


cdef void log_keep(log_t *log, int64_t second, const ip_addr_t *address, lent_t *text, uint32_t split, uint16_t status,
                   uint64_t body_bytes) noexcept nogil:
    cdef log_record_t *record
    if log.tail - log.head > log.mask:
        log.lost_lines += 1
        return
    record = &log.ring[log.tail & log.mask]
    record.second = second
    record.body_bytes = body_bytes
    record.text = lent_ref(text)
    record.address = address[0]
    record.split = split
    record.status = status
    log.tail += 1


cdef size_t log_format(log_t *log, const log_record_t *record, uint8_t *out) noexcept nogil:
    """One line: at most LOG_LINE_ROOM bytes and the text's."""
    cdef size_t at
    if ip_addr_is_v4(&record.address):
        inet_ntop(AF_INET, &record.address.words_be[3], <char *>out, 64)
    else:
        inet_ntop(AF_INET6, &record.address, <char *>out, 64)
    at = strlen(<char *>out)
    memcpy(out + at, b" - - ", 5)
    at += 5
    if record.second != log.time_second:
        write_log_time(log.time_text, record.second)
        log.time_second = record.second
    memcpy(out + at, log.time_text, LOG_TIME_BYTES)
    at += LOG_TIME_BYTES
    out[at] = c' '
    at += 1
    memcpy(out + at, record.text.data, record.split)
    at += record.split
    at += write_decimal(out + at, record.status)
    out[at] = c' '
    at += 1
    at += write_decimal(out + at, record.body_bytes)
    memcpy(out + at, record.text.data + record.split, record.text.length - record.split)
    return at + record.text.length - record.split


cdef uint32_t log_write(log_t *log, const uint8_t *data, size_t length) noexcept nogil:
    """The number of lines that the file took whole. A full disk or a closed pipe must not stop the server."""
    cdef size_t done = 0
    cdef ssize_t written
    log.error = 0
    while done < length:
        written = write(log.fd, data + done, length - done)
        if written > 0:
            done += <size_t>written
        elif written == 0 or errno != EINTR:
            log.error = errno if written < 0 else ENOSPC
            done -= log_cut_line(log, data, done)
            break
    return log_count_lines(data, done)


cdef size_t log_cut_line(log_t *log, const uint8_t *data, size_t done) noexcept nogil:
    """The last write ended inside a line: take that part out of the file, so that the next line does not join it.
    Returns how many bytes that is."""
    cdef size_t part = 0
    cdef int64_t end
    while part < done and data[done - 1 - part] != c'\n':
        part += 1
    if part and log.is_regular:
        end = lseek(log.fd, 0, SEEK_CUR)
        if end == lseek(log.fd, 0, SEEK_END) and ftruncate(log.fd, end - <int64_t>part) == 0:
            lseek(log.fd, 0, SEEK_END)               # if nobody else has appended to it
    return part


cdef uint32_t log_count_lines(const uint8_t *data, size_t length) noexcept nogil:
    cdef uint32_t lines = 0
    cdef size_t i
    for i in range(length):
        lines += data[i] == c'\n'
    return lines


cdef bint log_can_write(log_t *log) noexcept nogil:
    cdef pollfd wanted
    cdef timespec at_once
    if log.is_regular:
        return True
    wanted.fd = log.fd
    wanted.events = POLLOUT
    wanted.revents = 0
    at_once.tv_sec = 0
    at_once.tv_nsec = 0
    return ppoll(&wanted, 1, &at_once, NULL) == 1


cdef void log_drain(log_t *log) noexcept nogil:
    cdef size_t used, room
    cdef uint32_t lines, written
    cdef log_record_t *record
    cdef size_t batch = LOG_WRITE_BYTES if log.is_regular else LOG_PIPE_BYTES
    while log.head != log.tail:
        if not log_can_write(log):
            return
        used = 0
        lines = 0
        while log.head != log.tail:
            record = &log.ring[log.head & log.mask]
            room = LOG_LINE_ROOM + record.text.length
            if used and used + room > batch:
                break
            used += log_format(log, record, log.buffer + used)
            lent_unref(record.text)
            log.head += 1
            lines += 1
        written = log_write(log, log.buffer, used)
        log.written_lines += written
        log.lost_lines += lines - written
