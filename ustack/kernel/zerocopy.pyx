# SPDX-License-Identifier: MIT
"""Sends without a copy. See zerocopy.pxd."""

from libc.errno cimport EINTR, errno
from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memset

from ustack.base.iqueue cimport iqueue_append, iqueue_remove, iqueue_t, iqueue_take
from ustack.base.posix cimport (
    CMSG_DATA, CMSG_FIRSTHDR, IPPROTO_IP, IP_RECVERR, MSG_DONTWAIT, MSG_ERRQUEUE, SHUT_RDWR, TIOCOUTQ, close_descriptor,
    cmsghdr, getpid, ioctl, msghdr, ppoll, recvmsg, sockaddr, socket_connect, socket_shutdown, timespec)
from ustack.buf.lent cimport lent_ref, lent_unref
from ustack.buf.slab cimport slab_alloc, slab_release
from ustack.kernel.counters cimport ZEROCOPIES_COPIED, ZEROCOPIES_ORPHANED
from ustack.kernel.records cimport (
    ABORT, kernel_conn_t, kernel_t, orphan_t, piece_at, piece_link, piece_t, piece_take, tally)

cdef extern from "<linux/errqueue.h>" nogil:
    cdef struct sock_extended_err:
        uint32_t ee_errno
        uint8_t ee_origin
        uint8_t ee_code
        uint32_t ee_info
        uint32_t ee_data
    const uint8_t SO_EE_ORIGIN_ZEROCOPY, SO_EE_CODE_ZEROCOPY_COPIED

cdef enum:
    CONTROL_BYTES = 256
    LAST_LOOKS = 100

cdef uint64_t ORPHAN_NS = 60000000000       # as long as a peer's FIN is waited for
cdef uint64_t LAST_LOOK_NS = 2000000


# ---------------------------------------------------------------- what is held

cdef uint32_t zerocopy_spare(kernel_t *kernel) noexcept nogil:
    return slab_alloc(&kernel.pieces)


cdef void zerocopy_release(kernel_t *kernel, uint32_t spare) noexcept nogil:
    slab_release(&kernel.pieces, spare)


cdef void hold(kernel_t *kernel, kernel_conn_t *conn, uint32_t index) noexcept nogil:
    """Behind the others, with the number of this send where its length was."""
    cdef piece_t *piece = piece_at(kernel, index)
    piece.length = conn.zerocopies
    iqueue_append(&conn.held, piece_link, kernel, index)


cdef void zerocopy_hold(kernel_t *kernel, kernel_conn_t *conn, uint64_t length, uint32_t spare) noexcept nogil:
    cdef uint32_t index
    conn.queued_bytes -= <uint32_t>length
    index = piece_take(kernel, conn, &length)
    while index:
        hold(kernel, conn, index)
        index = piece_take(kernel, conn, &length)
    if length:                              # of a piece whose rest stays in the queue
        piece_at(kernel, spare).lent = lent_ref(piece_at(kernel, conn.pieces.first).lent)
        hold(kernel, conn, spare)
    elif spare:
        slab_release(&kernel.pieces, spare)
    conn.zerocopies += 1                    # as the kernel numbers those that took anything


cdef void sends_over(kernel_t *kernel, iqueue_t *held, uint32_t low, uint32_t high) noexcept nogil:
    """Numbers wrap around, and a send may be over before one that came first."""
    cdef uint32_t at = held.first, before = 0, following, number
    cdef piece_t *piece
    while at:
        piece = piece_at(kernel, at)
        following = piece.next
        number = <uint32_t>piece.length
        if number - low <= high - low:
            iqueue_remove(held, piece_link, kernel, before, at)
            lent_unref(piece.lent)
            slab_release(&kernel.pieces, at)
        elif <int32_t>(number - high) > 0:
            break
        else:
            before = at
        at = following


cdef uint32_t reap(kernel_t *kernel, int fd, iqueue_t *held) noexcept nogil:
    cdef uint8_t room[CONTROL_BYTES]
    cdef msghdr message
    cdef cmsghdr *control
    cdef const sock_extended_err *told
    cdef uint32_t over = 0
    while held.first:
        memset(&message, 0, sizeof(message))
        message.msg_control = room
        message.msg_controllen = CONTROL_BYTES
        if recvmsg(fd, &message, MSG_ERRQUEUE | MSG_DONTWAIT) < 0:
            if errno == EINTR:
                continue
            break
        control = CMSG_FIRSTHDR(&message)
        if control == NULL or control.cmsg_level != IPPROTO_IP or control.cmsg_type != IP_RECVERR:
            continue
        told = <const sock_extended_err *>CMSG_DATA(control)
        if told.ee_errno != 0 or told.ee_origin != SO_EE_ORIGIN_ZEROCOPY:
            continue
        if told.ee_code & SO_EE_CODE_ZEROCOPY_COPIED:
            tally(kernel, ZEROCOPIES_COPIED)
        over += told.ee_data - told.ee_info + 1
        sends_over(kernel, held, told.ee_info, told.ee_data)
    return over


cdef uint32_t zerocopy_reap(kernel_t *kernel, kernel_conn_t *conn) noexcept nogil:
    return reap(kernel, conn.fd, &conn.held)


# ---------------------------------------------------------------- orphans

cdef void reset(int fd) noexcept nogil:
    """RST, and nothing is sent any more; the descriptor stays (tcp_disconnect)."""
    cdef sockaddr nobody
    memset(&nobody, 0, sizeof(nobody))          # AF_UNSPEC
    socket_connect(fd, &nobody, sizeof(nobody))


cdef void forget(kernel_t *kernel, iqueue_t *held) noexcept nogil:
    """The references go though the kernel may have the memory yet: in a child, where it is a copy."""
    cdef uint32_t index
    while held.first:
        index = iqueue_take(held, piece_link, kernel)
        lent_unref(piece_at(kernel, index).lent)
        slab_release(&kernel.pieces, index)


cdef bint zerocopy_part(kernel_t *kernel, kernel_conn_t *conn) noexcept nogil:
    cdef orphan_t *orphan
    if kernel.process != getpid():
        forget(kernel, &conn.held)
        return False
    if conn.flags & ABORT:
        reset(conn.fd)
    else:
        socket_shutdown(conn.fd, SHUT_RDWR)     # the FIN, if it is not under way
    zerocopy_reap(kernel, conn)
    if conn.held.first == 0:
        return False
    if kernel.orphan_count == kernel.orphan_capacity and orphans_grow(kernel) < 0:
        reset(conn.fd)
        conn.held.first = conn.held.last = 0    # for good: without memory for a word about it
        return False
    tally(kernel, ZEROCOPIES_ORPHANED)
    orphan = &kernel.orphans[kernel.orphan_count]
    kernel.orphan_count += 1
    orphan.fd = conn.fd
    orphan.held = conn.held
    orphan.unacked_bytes = unacked(orphan.fd)
    orphan.until_ns = kernel.now_ns + ORPHAN_NS
    conn.held.first = conn.held.last = 0
    return True


cdef int unacked(int fd) noexcept nogil:
    """Bytes, and a FIN, that the peer has not acknowledged (tcp(7), SIOCOUTQ)."""
    cdef int waiting = 0
    ioctl(fd, TIOCOUTQ, &waiting)
    return waiting


cdef bint is_stuck(const kernel_t *kernel, orphan_t *orphan) noexcept nogil:
    cdef int left = unacked(orphan.fd)
    if left < orphan.unacked_bytes:
        orphan.unacked_bytes = left
        orphan.until_ns = kernel.now_ns + ORPHAN_NS
    return orphan.until_ns <= kernel.now_ns


cdef int orphans_grow(kernel_t *kernel) noexcept nogil:
    cdef uint32_t wanted = 2 * kernel.orphan_capacity if kernel.orphan_capacity else 16
    cdef void *grown = realloc(kernel.orphans, wanted * sizeof(orphan_t))
    if grown == NULL:
        return -1
    kernel.orphans = <orphan_t *>grown
    kernel.orphan_capacity = wanted
    return 0


cdef uint32_t orphans_look(kernel_t *kernel) noexcept nogil:
    if kernel.orphan_count == 0 or not (kernel.manual or kernel.now_ns - kernel.orphans_looked_ns >= ORPHANS_LOOK_NS):
        return 0
    kernel.orphans_looked_ns = kernel.now_ns
    return look_at(kernel, min(kernel.orphan_count, <uint32_t>ORPHANS_AT_ONCE))


cdef uint32_t look_at(kernel_t *kernel, uint32_t looks) noexcept nogil:
    """At the next ones: no more than there are."""
    cdef orphan_t *orphan
    cdef uint32_t ended = 0
    while looks:
        looks -= 1
        if kernel.orphan_hand >= kernel.orphan_count:
            kernel.orphan_hand = 0
        orphan = &kernel.orphans[kernel.orphan_hand]
        if kernel.ending or is_stuck(kernel, orphan):
            reset(orphan.fd)
        reap(kernel, orphan.fd, &orphan.held)
        if orphan.held.first:
            kernel.orphan_hand += 1
            continue
        close_descriptor(orphan.fd)
        ended += 1
        kernel.orphan_count -= 1
        orphan[0] = kernel.orphans[kernel.orphan_count]
    return ended


cdef void orphans_end(kernel_t *kernel) noexcept nogil:
    cdef timespec moment
    cdef uint32_t index, looks = 0
    moment.tv_sec = 0
    moment.tv_nsec = <long>LAST_LOOK_NS
    if kernel.process != getpid():
        for index in range(kernel.orphan_count):
            close_descriptor(kernel.orphans[index].fd)
            forget(kernel, &kernel.orphans[index].held)
        kernel.orphan_count = 0
    kernel.ending = True
    while kernel.orphan_count and looks < LAST_LOOKS:
        look_at(kernel, kernel.orphan_count)
        looks += 1
        if kernel.orphan_count:
            ppoll(NULL, 0, &moment, NULL)
    for index in range(kernel.orphan_count):
        close_descriptor(kernel.orphans[index].fd)
    kernel.orphan_count = kernel.orphan_capacity = 0
    free(kernel.orphans)
    kernel.orphans = NULL
