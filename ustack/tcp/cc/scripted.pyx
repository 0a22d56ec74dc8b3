# SPDX-License-Identifier: MIT
"""Congestion controls written in Python: a class with a method for each event in which it differs.

    class Gentle(CongestionControl):
        name = "gentle"

        def on_ack(self, window, ack):
            if ack.cwnd_limited and not ack.in_recovery:
                window.cwnd += window.smss * ack.acked // window.cwnd

    register(Gentle)            # cc="gentle" from now on: a stack, a listener, a connection, while it lives

Each connection has an object of its own, made when data first flows (__init__ gets the window), let go with the
connection. The events are those of contract.pxd, with the bodies of defaults.pxd where a class says nothing. They come
from within a turn of the engine: the GIL is taken for each, and the stack refuses to be called from there.

What a method raises goes to sys.unraisablehook, and the connection has NewReno from that event on, from the window as
it was: one broken control stops no connection. KeyboardInterrupt is none of its doing, and raised again later. A window
that no connection could have (less than nothing, more than TCP's largest) is such an error.

It must not: be fast. An event costs a microsecond or two; for experiments, not for 100,000 requests per second.
Above: registry's users, by name. Below: contract, defaults, newreno, registry.
"""

from cpython.exc cimport PyErr_SetInterrupt, PyErr_SetObject, PyErr_WriteUnraisable
from cpython.ref cimport Py_DECREF, Py_INCREF, PyObject
from libc.stdint cimport uint32_t
from libc.string cimport memset

from ustack.tcp.cc.contract cimport CC_MAX, CC_NAME_MAX, CWND_GROWS_BELOW, ack_sample_t, cc_ops_t, cc_view_t
from ustack.tcp.cc.newreno cimport newreno_ops, newreno_t
from ustack.tcp.cc.registry cimport CC_ERR_FULL, CC_ERR_TAKEN, cc_register

from ustack.tcp.cc.registry import names


cdef enum:
    SCRIPTED_MAX = 4                        # classes in one process

cdef enum event_t:
    ON_LOSS = 1
    ON_ECN = 2
    ON_TIMEOUT = 3
    ON_SPURIOUS = 4
    ON_IDLE = 5
    ON_MTU = 6

ctypedef struct scripted_t:                 # 40 bytes
    PyObject *control                       # NULL: it has failed, and:
    newreno_t newreno                       # its record


cdef class Window:
    """A connection as its control sees it, for the time of one event. Sizes are bytes."""

    cdef readonly int smss
    cdef readonly int srtt_us
    cdef readonly object now_ns
    cdef public object cwnd
    cdef public object ssthresh
    cdef public object pacing_rate

    def __repr__(self) -> str:
        return f"Window(cwnd={self.cwnd}, ssthresh={self.ssthresh}, smss={self.smss}, pacing_rate={self.pacing_rate})"


cdef class Ack:
    """One ACK: see ack_sample_t in contract.pxd. delivery_rate: bytes per second; 0: not measured."""

    cdef readonly object acked
    cdef readonly object delivered
    cdef readonly object flight
    cdef readonly object in_flight
    cdef readonly object newly_lost
    cdef readonly object delivery_rate
    cdef readonly int rtt_us
    cdef readonly int min_rtt_us
    cdef readonly int unsent
    cdef readonly bint cwnd_limited
    cdef readonly bint in_recovery
    cdef readonly bint is_app_limited
    cdef readonly bint round_start
    cdef readonly int ecn_marks

    def __repr__(self) -> str:
        return f"Ack(acked={self.acked}, rtt_us={self.rtt_us}, flight={self.flight}, in_recovery={self.in_recovery})"


class CongestionControl:
    """The events, with the default bodies: half the window at a loss, one segment after a timeout, no growth.

    window's cwnd, ssthresh and pacing_rate (bytes per second; 0: none) may be set. flight: bytes in flight.
    """

    name = ""

    def __init__(self, window: Window) -> None:
        """Data flows for the first time, or another control has handed over."""

    def on_ack(self, window: Window, ack: Ack) -> None:
        """Something has been delivered."""

    def on_loss(self, window: Window, flight: int) -> None:
        """A loss was found: once for each repair."""
        window.ssthresh = max(flight // 2, 2 * window.smss)
        window.cwnd = window.ssthresh

    def on_ecn(self, window: Window, flight: int) -> None:
        """The network has marked what it would have dropped."""
        self.on_loss(window, flight)

    def on_timeout(self, window: Window, flight: int, first: bool) -> None:
        """The retransmission timer; first: not for the same segment again."""
        if first:
            window.ssthresh = max(flight // 2, 2 * window.smss)
        window.cwnd = window.smss

    def on_spurious(self, window: Window, cwnd_before: int, ssthresh_before: int) -> None:
        """The last loss, or timeout, was none."""
        window.cwnd = max(window.cwnd, cwnd_before)
        window.ssthresh = max(window.ssthresh, ssthresh_before)

    def on_idle(self, window: Window, restart_window: int) -> None:
        """Sending begins again after an RTO without anything in flight."""
        window.cwnd = min(window.cwnd, restart_window)

    def on_mtu(self, window: Window, old_smss: int) -> None:
        """Segments have another size now."""
        if window.smss < old_smss:
            window.cwnd = max(window.cwnd * window.smss // old_smss, window.smss)


# ---------------------------------------------------------------- windows and samples

cdef Window window_of(const cc_view_t *view):
    cdef Window window = Window.__new__(Window)
    window.smss = view.smss
    window.srtt_us = view.srtt_us
    window.now_ns = view.now_ns
    window.cwnd = view.cwnd
    window.ssthresh = view.ssthresh
    window.pacing_rate = view.pacing_rate
    return window


cdef int window_take(Window window, cc_view_t *view) except -1:
    """Back into the view, all of it or, where something is wrong, nothing."""
    for name, value, most in (
            ("cwnd", window.cwnd, <uint32_t>CWND_GROWS_BELOW), ("ssthresh", window.ssthresh, 0xFFFFFFFF),
            ("pacing_rate", window.pacing_rate, (1 << 63) - 1)):
        if not isinstance(value, int) or not 0 <= value <= most:
            raise ValueError(f"{name}={value!r}: a whole number from 0 to {most} is needed")
    view.cwnd = window.cwnd
    view.ssthresh = window.ssthresh
    view.pacing_rate = window.pacing_rate
    return 0


cdef Ack ack_of(const ack_sample_t *sample):
    cdef Ack ack = Ack.__new__(Ack)
    ack.acked = sample.acked
    ack.delivered = sample.delivered
    ack.flight = sample.flight
    ack.in_flight = sample.in_flight
    ack.newly_lost = sample.newly_lost
    ack.delivery_rate = 0
    if sample.rate_interval_us:
        ack.delivery_rate = sample.rate_delivered * 1000000ULL // sample.rate_interval_us
    ack.rtt_us = sample.rtt_us
    ack.min_rtt_us = sample.min_rtt_us
    ack.unsent = sample.unsent if sample.unsent > 0 else 0
    ack.cwnd_limited = sample.cwnd_limited
    ack.in_recovery = sample.in_recovery
    ack.is_app_limited = sample.is_app_limited
    ack.round_start = sample.round_start
    ack.ecn_marks = sample.ecn_marks
    return ack


# ---------------------------------------------------------------- calling a method

cdef void let_go(scripted_t *own):
    cdef PyObject *control = own.control
    own.control = NULL
    if control != NULL:
        Py_DECREF(<object>control)


cdef void report(object control, BaseException error):
    """sys.unraisablehook, with the traceback that it has."""
    PyErr_SetObject(type(error), error)
    PyErr_WriteUnraisable(control)


cdef bint answered(scripted_t *own, cc_view_t *view, str method, tuple arguments) noexcept:
    """Call it, and take the window. False: it has failed, and NewReno has the connection."""
    cdef Window window
    cdef object control = <object>own.control
    try:
        window = window_of(view)
        getattr(control, method)(window, *arguments)
        window_take(window, view)
    except KeyboardInterrupt:
        PyErr_SetInterrupt()                # the caller's: it comes again, and the control stays
    except BaseException as error:
        report(control, error)
        let_go(own)
        memset(&own.newreno, 0, sizeof(newreno_t))
        newreno_ops().init(&own.newreno, view)
        return False
    return True


cdef bint ask_ack(scripted_t *own, cc_view_t *view, const ack_sample_t *sample) noexcept with gil:
    return answered(own, view, "on_ack", (ack_of(sample),))


cdef bint ask(scripted_t *own, cc_view_t *view, event_t event, uint32_t one, uint32_t other) noexcept with gil:
    if event == ON_LOSS:
        return answered(own, view, "on_loss", (one,))
    if event == ON_ECN:
        return answered(own, view, "on_ecn", (one,))
    if event == ON_TIMEOUT:
        return answered(own, view, "on_timeout", (one, bool(other)))
    if event == ON_SPURIOUS:
        return answered(own, view, "on_spurious", (one, other))
    if event == ON_IDLE:
        return answered(own, view, "on_idle", (one,))
    return answered(own, view, "on_mtu", (one,))


# ---------------------------------------------------------------- the calls of a control

cdef inline scripted_t *own_of(void *state) noexcept nogil:
    return <scripted_t *>state


cdef void scripted_release(void *state) noexcept nogil:
    with gil:
        let_go(own_of(state))


cdef void scripted_on_ack(void *state, cc_view_t *view, const ack_sample_t *sample) noexcept nogil:
    cdef scripted_t *own = own_of(state)
    if own.control == NULL or not ask_ack(own, view, sample):
        newreno_ops().on_ack(&own.newreno, view, sample)


cdef void scripted_on_loss(void *state, cc_view_t *view, uint32_t flight) noexcept nogil:
    cdef scripted_t *own = own_of(state)
    if own.control == NULL or not ask(own, view, ON_LOSS, flight, 0):
        newreno_ops().on_loss(&own.newreno, view, flight)


cdef void scripted_on_ecn(void *state, cc_view_t *view, uint32_t flight) noexcept nogil:
    cdef scripted_t *own = own_of(state)
    if own.control == NULL or not ask(own, view, ON_ECN, flight, 0):
        newreno_ops().on_ecn(&own.newreno, view, flight)


cdef void scripted_on_rto(void *state, cc_view_t *view, uint32_t flight, bint first) noexcept nogil:
    cdef scripted_t *own = own_of(state)
    if own.control == NULL or not ask(own, view, ON_TIMEOUT, flight, first):
        newreno_ops().on_rto(&own.newreno, view, flight, first)


cdef void scripted_on_spurious(void *state, cc_view_t *view, uint32_t cwnd_before,
                               uint32_t ssthresh_before) noexcept nogil:
    cdef scripted_t *own = own_of(state)
    if own.control == NULL or not ask(own, view, ON_SPURIOUS, cwnd_before, ssthresh_before):
        newreno_ops().on_spurious(&own.newreno, view, cwnd_before, ssthresh_before)


cdef void scripted_on_idle(void *state, cc_view_t *view, uint32_t restart_window) noexcept nogil:
    cdef scripted_t *own = own_of(state)
    if own.control == NULL or not ask(own, view, ON_IDLE, restart_window, 0):
        newreno_ops().on_idle(&own.newreno, view, restart_window)


cdef void scripted_on_mtu(void *state, cc_view_t *view, uint32_t old_smss) noexcept nogil:
    cdef scripted_t *own = own_of(state)
    if own.control == NULL or not ask(own, view, ON_MTU, old_smss, 0):
        newreno_ops().on_mtu(&own.newreno, view, old_smss)


# ---------------------------------------------------------------- classes

cdef cc_ops_t[SCRIPTED_MAX] TABLES
cdef list CLASSES = []                      # by table
cdef list NAMES = []                        # the tables point to them


cdef void begin(void *state, cc_view_t *view, int number) noexcept with gil:
    """An object for this connection: a table has no room for its class, so there is an init for each."""
    cdef scripted_t *own = own_of(state)
    cdef Window window
    try:
        window = window_of(view)
        control = CLASSES[number](window)
        window_take(window, view)
        Py_INCREF(control)
        own.control = <PyObject *>control
    except KeyboardInterrupt:
        PyErr_SetInterrupt()                # the caller's, as above; there is no control that could stay
        newreno_ops().init(&own.newreno, view)
    except BaseException as error:
        report(CLASSES[number], error)
        newreno_ops().init(&own.newreno, view)


cdef void init_0(void *state, cc_view_t *view) noexcept nogil:
    begin(state, view, 0)


cdef void init_1(void *state, cc_view_t *view) noexcept nogil:
    begin(state, view, 1)


cdef void init_2(void *state, cc_view_t *view) noexcept nogil:
    begin(state, view, 2)


cdef void init_3(void *state, cc_view_t *view) noexcept nogil:
    begin(state, view, 3)


cdef list scripted_names():
    return [name.decode() for name in NAMES]


def register(control: type[CongestionControl]) -> None:
    """Make a class known by its name; as often as you like. Another class of that name takes its place for connections
    that begin from now on: a changed control needs no new process. Raises ValueError: no name, one that is taken by
    another control, or more than four."""
    cdef int number, result
    cdef cc_ops_t *ops
    cdef bytes name
    if not isinstance(control, type) or not issubclass(control, CongestionControl):
        raise TypeError(f"{control!r}: a subclass of CongestionControl is needed")
    name = str(control.name).encode()
    if not name or len(name) > CC_NAME_MAX or b"\0" in name:
        raise ValueError(f"name={control.name!r}: 1 to {CC_NAME_MAX} characters are needed")
    if name in NAMES:
        CLASSES[NAMES.index(name)] = control
        return
    if len(NAMES) == SCRIPTED_MAX:
        raise ValueError(f"{SCRIPTED_MAX} controls written in Python are registered: {', '.join(scripted_names())}")
    number = len(NAMES)
    ops = &TABLES[number]
    memset(ops, 0, sizeof(cc_ops_t))
    ops.name = name
    ops.state_bytes = sizeof(scripted_t)
    ops.paces = True                        # window.pacing_rate is the class's
    if number == 0:
        ops.init = init_0
    elif number == 1:
        ops.init = init_1
    elif number == 2:
        ops.init = init_2
    else:
        ops.init = init_3
    ops.release = scripted_release
    ops.on_ack = scripted_on_ack
    ops.on_loss = scripted_on_loss
    ops.on_ecn = scripted_on_ecn
    ops.on_rto = scripted_on_rto
    ops.on_spurious = scripted_on_spurious
    ops.on_idle = scripted_on_idle
    ops.on_mtu = scripted_on_mtu
    result = cc_register(ops)
    if result == CC_ERR_TAKEN:
        raise ValueError(f"name={control.name!r}: there is such a control already")
    if result == CC_ERR_FULL:
        raise ValueError(f"no more than {CC_MAX} controls can be registered; there are: {', '.join(names())}")
    NAMES.append(name)
    CLASSES.append(control)
