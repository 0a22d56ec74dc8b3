# SPDX-License-Identifier: MIT
# Who is inside: one gate for everything that shares C state, so that nothing that Python does can corrupt it.
#
# A link has a gate; the stack on it uses the same one, a TeeLink its inner link's, and the two ends of a SimNetwork
# share theirs. Whoever touches that state from Python goes through the gate first; a second thread, and Python code
# that runs inside (a destructor, a callback, a signal handler), get an OwnershipError instead.
#
# The gate itself is guarded by the GIL: enter and leave are called with it, and `inside` does not change while its
# owner runs without it. Ownership passes between calls: whoever enters next is the owner.
#
# What cannot wait for an answer, because nobody is there to get an exception (an object is collected in some thread at
# some moment), is deferred: the owner does it before it leaves, or between two turns of a long call.

cdef class Gate:
    cdef unsigned long inside               # thread identifier of the owner; 0: nobody is inside
    cdef str call                           # which public call it is in
    cdef bint closing                       # the owner closes a link: check() lets it close what lies below
    cdef list deferred                      # callables without arguments
    # Called with the GIL when something is deferred and somebody is inside, who may sleep; NULL: nobody does.
    cdef void (*wake)(void *sleeper) noexcept
    cdef void *sleeper
    # Raises the OwnershipError for `call`.
    cdef int refuse(self, str call) except -1
    # Raises OwnershipError if anybody is inside.
    cdef int enter(self, str call) except -1
    # Does what was deferred, then opens the gate. Nothing if another thread is inside (see Engine.serve_waker).
    cdef void leave(self) noexcept
    # For calls that keep the GIL and run no Python while they touch the state: enter and leave in one.
    cdef int check(self, str call) except -1
    # The same for closing a link that closes another one. Whether it has entered: 0 inside of such a call.
    cdef bint enter_to_close(self) except -1
    cdef void leave_closed(self, bint entered) noexcept
    # Do what was deferred and give lent objects back. The caller is inside; no frame or record may be in its hands.
    cdef void serve(self) noexcept
    # Have action() called by the owner: now if nobody is inside. Takes any thread, at any moment.
    cdef void defer(self, object action) noexcept


# A ResourceWarning from a finalizer; a warning that is an error is reported as unraisable.
cdef void warn_unclosed(object source) noexcept
