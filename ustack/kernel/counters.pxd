# SPDX-License-Identifier: MIT
# What a transport over the kernel's sockets counts, by name. Above: records. Below: nothing.

from libc.stdint cimport uint64_t

cpdef enum kernel_counter_t:
    TURNS
    WAITS                           # calls that ask the kernel what is ready
    SPINS                           # waits that asked again and again before they slept
    SPINS_IN_VAIN                   # ... and slept after all
    EVENTS_TOLD
    EVENTS_STALE                    # about a connection that had ended in the same turn
    INTERESTS_CHANGED               # system calls that only tell the strategy what is wanted
    UPCALLS
    BYTES_RECEIVED
    BYTES_SENT
    RECEIVES                        # system calls
    RECEIVES_IN_VAIN                # ... that found nothing
    SENDS
    SENDFILES                       # of them, sendfile
    ZEROCOPIES                      # ... without a copy
    ZEROCOPIES_COPIED               # words of the kernel's that it has copied after all, for one or more of them
    ZEROCOPIES_DECLINED             # sends that it had no memory to make without a copy: made with one
    ZEROCOPIES_ORPHANED             # sockets kept open beyond the end of their connection, until their sends were over
    CORKS                           # times that TCP_CORK was set, and taken away when the queue was empty
    SENDS_SHORT                     # ... of which the kernel took a part, or nothing
    ACCEPTED_CONNECTIONS
    OPENED_CONNECTIONS
    CLOSED_CONNECTIONS
    RESET_CONNECTIONS               # by the peer
    ABORTED_CONNECTIONS             # by us
    REFUSED_BY_APPLICATION          # of those that were accepted
    REFUSED_WITHOUT_MEMORY          # the application had none, or the transport
    REFUSED_WITHOUT_DESCRIPTOR      # EMFILE or ENFILE: reset, with the descriptor that is kept for this
    REFUSED_BY_STRATEGY             # their descriptor was beyond what it can watch (FD_SETSIZE)
    ACCEPTS_FAILED                  # the peer had gone, or the kernel lacked something
    LISTENERS_HELD                  # times that a listener had to wait: its backlog or this transport was full
    UNREAD_REFUSED                  # connections reset: what on_data left was beyond max_unread_bytes
    DAMAGED_ABORTED                 # connections reset: the file that they were being sent had been cut short
    FILE_READS                      # of files, that were begun (aio)
    FILE_READS_REFUSED              # ... and that could not be: too many at once, or the C library had no thread
    FILE_READS_UNTOLD               # ... and whose end was seen before a signal told it, or without one
    FILE_READS_GIVEN_UP             # ... and that had not ended when the transport went
    FILE_READS_LATE                 # turns with a manual clock that went on without one, after a minute
    HAND_OVERS
    EVENTS_HANDED_OVER
    KERNEL_COUNTERS


cdef dict kernel_counters_as_dict(const uint64_t *values)
