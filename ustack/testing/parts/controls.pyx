# SPDX-License-Identifier: MIT
"""Congestion controls that only tests have, to prove the contract (tcp/cc/contract.pxd) by controls unlike NewReno.

    register()          -> ("bare", "fixed", "aimd", "nothing"), once in a process
    bare                names no call at all: the default bodies
    fixed               a window of so many bytes, whatever happens; no record of its own (set_fixed_bytes)
    aimd                a record of 32 bytes, which it uses, and every call written down (calls, take_calls)
    nothing             answers a window of 0 to everything: what a faulty control does to a connection

Control calls the table of any registered control with plain numbers. Above: tests. Below: tcp/cc.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from ustack.tcp.cc.bbr cimport bbr_ops
from ustack.tcp.cc.bbr_model cimport bbr_t, max_filter_t, max_filter_update
from ustack.tcp.cc.contract cimport (
    CC_STATE_BYTES_MAX, SSTHRESH_AT_FIRST, ack_sample_t, cc_ops_t, cc_view_t, loss_sample_t)
from ustack.tcp.cc.cubic cimport cube_root
from ustack.tcp.cc.defaults cimport cc_fill_defaults
from ustack.tcp.cc.registry cimport CC_ERR_BAD, CC_ERR_FULL, CC_ERR_TAKEN, cc_number, cc_register, cc_table


# ---------------------------------------------------------------- bare, fixed, nothing

cdef cc_ops_t BARE
BARE.name = b"bare"

cdef uint32_t FIXED_BYTES = 20000


def set_fixed_bytes(window_bytes: int) -> None:
    """The window of `fixed`, from the next event of each connection on."""
    global FIXED_BYTES
    FIXED_BYTES = window_bytes


cdef void fixed_window(cc_view_t *view) noexcept nogil:
    view.cwnd = FIXED_BYTES
    view.ssthresh = FIXED_BYTES


cdef void fixed_init(void *state, cc_view_t *view) noexcept nogil:
    fixed_window(view)


cdef void fixed_on_ack(void *state, cc_view_t *view, const ack_sample_t *sample) noexcept nogil:
    fixed_window(view)


cdef void fixed_on_loss(void *state, cc_view_t *view, uint32_t flight) noexcept nogil:
    fixed_window(view)


cdef void fixed_on_rto(void *state, cc_view_t *view, uint32_t flight, bint first) noexcept nogil:
    fixed_window(view)


cdef void fixed_on_change(void *state, cc_view_t *view, uint32_t number) noexcept nogil:
    fixed_window(view)


cdef cc_ops_t FIXED
FIXED.name = b"fixed"
FIXED.init = fixed_init
FIXED.on_ack = fixed_on_ack
FIXED.on_loss = fixed_on_loss
FIXED.on_rto = fixed_on_rto
FIXED.on_idle = fixed_on_change
FIXED.on_mtu = fixed_on_change


cdef void nothing_init(void *state, cc_view_t *view) noexcept nogil:
    view.cwnd = 0
    view.ssthresh = 0


cdef void nothing_on_ack(void *state, cc_view_t *view, const ack_sample_t *sample) noexcept nogil:
    nothing_init(state, view)


cdef void nothing_on_loss(void *state, cc_view_t *view, uint32_t flight) noexcept nogil:
    nothing_init(state, view)


cdef void nothing_on_rto(void *state, cc_view_t *view, uint32_t flight, bint first) noexcept nogil:
    nothing_init(state, view)


cdef cc_ops_t NOTHING
NOTHING.name = b"nothing"
NOTHING.init = nothing_init
NOTHING.on_ack = nothing_on_ack
NOTHING.on_loss = nothing_on_loss
NOTHING.on_rto = nothing_on_rto
NOTHING.on_idle = nothing_on_loss
NOTHING.on_mtu = nothing_on_loss


# ---------------------------------------------------------------- aimd

ctypedef struct aimd_t:
    uint32_t self_check                     # AIMD_BORN while the record is this control's
    uint32_t acked                          # toward the next increase
    uint64_t acked_in_all
    uint64_t sent_in_all
    uint64_t last_sent_ns

cdef enum:
    AIMD_BORN = 0x41494D44

cdef list CALLS = []                        # of all connections
cdef list FAULTS = []                       # records that were not what they should have been


def take_calls() -> list[tuple[object, ...]]:
    """What aimd was called with since the last time: (name, number, ...), in the order of the call's arguments; a
    sample is a dict of what is not 0."""
    taken = list(CALLS)
    CALLS.clear()
    return taken


def faults() -> list[str]:
    """Calls with a record that init had not had, or that release had had already."""
    return list(FAULTS)


cdef void note(aimd_t *own, tuple call) noexcept:
    CALLS.append(call)
    if own.self_check != <uint32_t>AIMD_BORN:
        FAULTS.append(call[0])


cdef void aimd_init(void *state, cc_view_t *view) noexcept nogil:
    cdef aimd_t *own = <aimd_t *>state
    cdef bint clean = own.self_check == 0 and own.acked == 0 and own.acked_in_all == 0 and own.sent_in_all == 0
    own.self_check = AIMD_BORN
    with gil:
        note(own, ("init", view.cwnd, view.ssthresh, view.smss))
        if not clean:
            FAULTS.append("init: not zeroed")


cdef void aimd_release(void *state) noexcept nogil:
    cdef aimd_t *own = <aimd_t *>state
    with gil:
        note(own, ("release", own.sent_in_all, own.acked_in_all))
    own.self_check = 0


cdef void aimd_on_sent(void *state, uint32_t length, uint32_t flight, uint64_t now_ns) noexcept nogil:
    cdef aimd_t *own = <aimd_t *>state
    own.sent_in_all += length
    with gil:
        note(own, ("on_sent", length, flight))
        if now_ns < own.last_sent_ns:
            FAULTS.append("on_sent: time goes back")
    own.last_sent_ns = now_ns


cdef void aimd_on_ack(void *state, cc_view_t *view, const ack_sample_t *sample) noexcept nogil:
    cdef aimd_t *own = <aimd_t *>state
    own.acked_in_all += sample.acked
    with gil:
        note(own, ("on_ack", sample_as_dict(sample)))
    if sample.in_recovery:
        return
    own.acked += sample.acked
    if view.cwnd < view.ssthresh:
        view.cwnd += sample.acked
    elif own.acked >= view.cwnd:
        own.acked = 0
        view.cwnd += view.smss


cdef dict sample_as_dict(const ack_sample_t *sample):
    every = {
        "acked": sample.acked, "flight": sample.flight, "rtt_us": sample.rtt_us, "unsent": sample.unsent,
        "cwnd_limited": bool(sample.cwnd_limited), "in_recovery": bool(sample.in_recovery),
        "newly_lost": sample.newly_lost, "ecn_marks": sample.ecn_marks,
        "delivered": sample.delivered, "min_rtt_us": sample.min_rtt_us, "prior_in_flight": sample.prior_in_flight,
        "in_flight": sample.in_flight, "round_start": bool(sample.round_start),
        "is_app_limited": bool(sample.is_app_limited), "delivered_total": sample.delivered_total,
        "lost_total": sample.lost_total, "rate_delivered": sample.rate_delivered,
        "rate_interval_us": sample.rate_interval_us, "rate_prior_delivered": sample.rate_prior_delivered,
        "rate_in_flight": sample.rate_in_flight, "rate_lost": sample.rate_lost,
    }
    return {name: value for name, value in every.items() if value}


cdef void aimd_on_loss(void *state, cc_view_t *view, uint32_t flight) noexcept nogil:
    with gil:
        note(<aimd_t *>state, ("on_loss", flight))
    view.cwnd = flight // 4 * 3
    view.ssthresh = view.cwnd


cdef void aimd_on_spurious(void *state, cc_view_t *view, uint32_t cwnd_before, uint32_t ssthresh_before) noexcept nogil:
    with gil:
        note(<aimd_t *>state, ("on_spurious", cwnd_before, ssthresh_before))
    view.cwnd = cwnd_before
    view.ssthresh = ssthresh_before


cdef void aimd_on_rto(void *state, cc_view_t *view, uint32_t flight, bint first) noexcept nogil:
    with gil:
        note(<aimd_t *>state, ("on_rto", flight, bool(first)))
    view.cwnd = view.smss


cdef void aimd_on_idle(void *state, cc_view_t *view, uint32_t restart_window) noexcept nogil:
    with gil:
        note(<aimd_t *>state, ("on_idle", restart_window))


cdef void aimd_on_mtu(void *state, cc_view_t *view, uint32_t old_smss) noexcept nogil:
    with gil:
        note(<aimd_t *>state, ("on_mtu", view.smss, old_smss))


cdef cc_ops_t AIMD
AIMD.name = b"aimd"
AIMD.state_bytes = sizeof(aimd_t)
AIMD.init = aimd_init
AIMD.release = aimd_release
AIMD.on_sent = aimd_on_sent
AIMD.on_ack = aimd_on_ack
AIMD.on_loss = aimd_on_loss
AIMD.on_spurious = aimd_on_spurious
AIMD.on_rto = aimd_on_rto
AIMD.on_idle = aimd_on_idle
AIMD.on_mtu = aimd_on_mtu


# ---------------------------------------------------------------- the registry

def register() -> tuple[str, ...]:
    """Register them; their names."""
    for number in (cc_register(&BARE), cc_register(&FIXED), cc_register(&AIMD), cc_register(&NOTHING)):
        if number < 0:
            raise RuntimeError(f"cc_register() refused a control: {number}")
    return "bare", "fixed", "aimd", "nothing"


cdef cc_ops_t[16] SPARE
cdef list SPARE_NAMES = []


def register_spare(name: bytes | None, state_bytes: int = 0) -> int:
    """Register one more control without calls: its number, or what cc_register says: REFUSALS has the names."""
    cdef int number
    cdef cc_ops_t *ops
    if len(SPARE_NAMES) == 16:
        raise RuntimeError("no spare table is left")
    ops = &SPARE[len(SPARE_NAMES)]
    SPARE_NAMES.append(name)                # the table points to it
    ops.name = <const char *><bytes>name if name is not None else NULL
    ops.state_bytes = state_bytes
    number = cc_register(ops)
    return number


def cube_root_of(value: int) -> int:
    """CUBIC's."""
    return cube_root(value)


STATE_BYTES_MAX = int(CC_STATE_BYTES_MAX)
REFUSALS = {int(CC_ERR_TAKEN): "taken", int(CC_ERR_FULL): "full", int(CC_ERR_BAD): "bad"}


cdef const cc_ops_t *table_of(str name) except NULL:
    """Of a registered control, or of bbr, which is none before output paces."""
    cdef cc_ops_t *bbr = bbr_ops()
    if name != "bbr":
        return cc_table(cc_number(name))
    if bbr.on_mtu == NULL:
        cc_fill_defaults(bbr)
    return bbr


cdef class MaxFilter:
    """BBR's filter of the largest value of a window of time."""

    cdef max_filter_t filter

    def __init__(self):
        memset(&self.filter, 0, sizeof(self.filter))

    def update(self, uint32_t window, uint32_t time, uint32_t value) -> int:
        """The largest of the last `window` units of time, this one included."""
        return max_filter_update(&self.filter, window, time, value)


# ---------------------------------------------------------------- any control with plain numbers

cdef class Control:
    """A registered control's table, a record and a window of its own. Numbers are bytes."""

    cdef cc_view_t view
    cdef uint8_t[CC_STATE_BYTES_MAX] record
    cdef const cc_ops_t *ops

    def __init__(self, str name, uint32_t smss, uint32_t initial_window, *, uint64_t now_ns=0, uint32_t srtt_us=0,
                 uint32_t seed=1):
        self.ops = table_of(name)
        memset(self.record, 0, sizeof(self.record))
        memset(&self.view, 0, sizeof(self.view))
        self.view.smss = smss
        self.view.cwnd = initial_window
        self.view.ssthresh = SSTHRESH_AT_FIRST
        self.view.now_ns = now_ns
        self.view.srtt_us = srtt_us
        self.view.seed = seed
        self.ops.init(self.record, &self.view)

    @property
    def window(self) -> tuple[int, int]:
        """(cwnd, ssthresh)."""
        return self.view.cwnd, self.view.ssthresh

    @window.setter
    def window(self, tuple values):
        self.view.cwnd, self.view.ssthresh = values

    def release(self) -> None:
        """The connection ends."""
        self.ops.release(self.record)

    def on_sent(self, uint32_t length, uint32_t flight) -> None:
        """A frame went out."""
        self.ops.on_sent(self.record, length, flight, self.view.now_ns)

    @property
    def now_ns(self) -> int:
        """The time of the next event."""
        return self.view.now_ns

    @now_ns.setter
    def now_ns(self, uint64_t value):
        self.view.now_ns = value

    @property
    def pacing_rate(self) -> int:
        """Bytes per second; 0: not paced."""
        return self.view.pacing_rate

    @pacing_rate.setter
    def pacing_rate(self, uint64_t value):
        self.view.pacing_rate = value

    def on_ack(self, uint32_t acked, uint32_t flight, *, bint cwnd_limited=True, uint32_t rtt_us=0,
               bint in_recovery=False) -> None:
        """New data was acknowledged. rtt_us: the round trip that it has measured; 0: none."""
        cdef ack_sample_t sample
        memset(&sample, 0, sizeof(sample))
        sample.acked = acked
        sample.rtt_us = rtt_us
        sample.in_recovery = in_recovery
        sample.flight = flight
        sample.cwnd_limited = cwnd_limited
        self.ops.on_ack(self.record, &self.view, &sample)

    def on_sample(self, *, uint32_t acked=0, uint32_t delivered=0, uint32_t rtt_us=0, uint32_t flight=0,
                  uint32_t prior_in_flight=0, uint32_t in_flight=0, bint in_recovery=False, bint selective=True,
                  bint is_app_limited=False, uint32_t delivered_total=0, uint32_t rate_delivered=0,
                  uint32_t rate_interval_us=0, uint32_t rate_prior_delivered=0, uint32_t rate_in_flight=0,
                  uint32_t rate_lost=0, uint32_t newly_lost=0) -> None:
        """An ACK with a delivery rate."""
        cdef ack_sample_t sample
        memset(&sample, 0, sizeof(sample))
        sample.acked = acked
        sample.delivered = delivered
        sample.rtt_us = rtt_us
        sample.flight = flight
        sample.prior_in_flight = prior_in_flight
        sample.in_flight = in_flight
        sample.cwnd_limited = prior_in_flight + self.view.smss > self.view.cwnd
        sample.in_recovery = in_recovery
        sample.selective = selective
        sample.is_app_limited = is_app_limited
        sample.delivered_total = delivered_total
        sample.rate_delivered = rate_delivered
        sample.rate_interval_us = rate_interval_us
        sample.rate_prior_delivered = rate_prior_delivered
        sample.rate_in_flight = rate_in_flight
        sample.rate_lost = rate_lost
        sample.newly_lost = newly_lost
        self.view.hold_samples = False
        self.view.delivered_total = delivered_total
        self.ops.on_ack(self.record, &self.view, &sample)

    @property
    def holds_samples(self) -> bool:
        """The last ACK has marked what is in flight as application-limited."""
        return self.view.hold_samples

    def rest_and_wake(self) -> int:
        """The record goes and comes back. The word that was kept."""
        cdef uint32_t kept = self.ops.rest(self.record)
        self.ops.release(self.record)
        memset(self.record, 0, sizeof(self.record))
        self.ops.wake(self.record, &self.view, kept)
        return kept

    def on_start(self) -> None:
        """The first data of a flight is about to go."""
        self.ops.on_start(self.record, &self.view)

    def on_lost(self, uint32_t seq, uint32_t length, *, uint32_t in_flight, uint32_t lost, uint32_t delivered_total,
                bint app_limited=False, bint selective=True) -> None:
        """A frame was found lost."""
        cdef loss_sample_t sample
        sample.seq = seq
        sample.bytes = length
        sample.in_flight = in_flight
        sample.lost = lost
        sample.delivered_total = delivered_total
        sample.app_limited = app_limited
        sample.selective = selective
        self.view.delivered_total = delivered_total
        self.ops.on_lost(self.record, &self.view, &sample)

    def bbr(self) -> dict[str, object]:
        """What BBR remembers; only of such a control."""
        if self.ops != bbr_ops():
            raise TypeError("it is no bbr")
        return <object>(<bbr_t *>self.record)[0]

    def on_loss(self, uint32_t flight) -> None:
        """Fast recovery begins."""
        self.ops.on_loss(self.record, &self.view, flight)

    def on_ecn(self, uint32_t flight) -> None:
        """The network has marked a segment."""
        self.ops.on_ecn(self.record, &self.view, flight)

    def on_spurious(self, uint32_t cwnd_before, uint32_t ssthresh_before) -> None:
        """The last loss was none."""
        self.ops.on_spurious(self.record, &self.view, cwnd_before, ssthresh_before)

    def on_rto(self, uint32_t flight, bint first=True) -> None:
        """The retransmission timer expired."""
        self.ops.on_rto(self.record, &self.view, flight, first)

    def on_idle(self, uint32_t restart_window) -> None:
        """Sending begins again after an RTO."""
        self.ops.on_idle(self.record, &self.view, restart_window)

    def on_mtu(self, uint32_t smss) -> None:
        """Segments have another size from now on."""
        cdef uint32_t old_smss = self.view.smss
        self.view.smss = smss
        self.ops.on_mtu(self.record, &self.view, old_smss)
