# SPDX-License-Identifier: MIT
"""Loss recovery with plain numbers: a sender without a network, and the rules of recovery as functions.

    sender = Sender(mss=1000)
    sender.send(10)                       # ten frames of a segment each, at the present time
    sender.now_ns += 20_000_000
    sender.ack(0, sack=[(3000, 4000)])    # relative to the first byte
    sender.records()                      # [(0, 1000, "lost", 1), ...]

Numbers are bytes from the first one sent, whose sequence number lies just under 2^32. Nothing is sent: what output
would do is done by send and resend. Read first: tcp/records/flight.pxd, tcp/recovery/repair.pxd. Above: tests. Below:
tcp.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memset

from ustack.base.counters cimport counters_as_dict, counters_t
from ustack.tcp.cc.contract cimport cc_ops_t
from ustack.tcp.cc.registry cimport cc_number
from ustack.tcp.records.configuration cimport tcp_config_defaults, tcp_config_t
from ustack.tcp.records.deadlines cimport deadline_clear
from ustack.tcp.records.flight cimport (
    FLIGHT_LONE, FLIGHT_PROBE, FLIGHT_REORDER, FLIGHT_SEND_ONE, TX_LOST, TX_SACKED, flight_pipe, flight_raw, flight_t,
    transmission_at, transmission_bytes, transmission_t)
from ustack.tcp.records.life cimport tcb_alloc, tcb_release, tcp_destroy, tcp_init
from ustack.tcp.records.moves cimport set_state
from ustack.tcp.records.state cimport ESTABLISHED, SYN_SENT
from ustack.tcp.records.tcb cimport (
    DEADLINE_PROBE, DEADLINE_REXMIT, OPT_SACK, OPT_TIMESTAMPS, TCB_LISTED, TCB_REORDERED, tcb_t, tcp_t, tcp_timestamp)
from ustack.tcp.recovery.accecn cimport marks_by_bytes, marks_least, marks_most
from ustack.tcp.recovery.ack cimport ack_input, ack_start
from ustack.tcp.recovery.control cimport (
    control_begin, control_choose, control_end, control_of, control_provide, control_state)
from ustack.tcp.recovery.invariants cimport flight_check
from ustack.tcp.recovery.path cimport black_hole_size, probe_wait_ns, search_size
from ustack.tcp.recovery.prr cimport prr_recover_fs, prr_send_count
from ustack.tcp.recovery.rack cimport (
    rack_window_us, reordering_faded, reordering_multiplier, reordering_widened, reordering_window_us)
from ustack.tcp.recovery.repair cimport (
    repair_note_sent, repair_on_reordering_timeout, repair_on_rto, repair_resend)
from ustack.tcp.recovery.rtt cimport rexmit_start, rtt_min_us
from ustack.tcp.recovery.tlp cimport tlp_timeout_us
from ustack.tcp.recovery.transmissions cimport (
    flight_of, transmission_prepare, transmission_resent, transmission_sent, transmission_split, transmissions_end)
from ustack.tcp.recovery.undo cimport frto_step
from ustack.wire.tcp cimport ACK, HAS_TIMESTAMPS, segment_t


cdef uint32_t FIRST = 0xFFFFF000u

REPAIRS = ("none", "fast", "rto", "size")


cdef class Sender:
    """One ESTABLISHED connection's sending side. now_ns: settable, never goes back."""

    cdef tcp_t c
    cdef tcb_t *tcb
    cdef counters_t counters

    def __init__(self, *, uint32_t mss=1000, bint sack=True, bint timestamps=False, uint32_t window=1 << 30,
                 uint32_t cwnd=0, uint32_t flights=1 << 20, uint32_t transmissions=1 << 20, uint64_t now_ns=1 << 40,
                 str cc="newreno"):
        cdef tcp_config_t config
        cdef int control = cc_number(cc)
        tcp_config_defaults(&config)
        config.flights = flights
        config.transmissions = transmissions
        if self.tcb != NULL or tcp_init(&self.c, NULL, &self.counters, &config, 1, now_ns) != 0:
            raise MemoryError
        self.tcb = tcb_alloc(&self.c)
        set_state(&self.c, self.tcb, SYN_SENT)
        set_state(&self.c, self.tcb, ESTABLISHED)
        self.tcb.smss = <uint16_t>mss
        self.tcb.snd_una = FIRST
        self.tcb.snd_nxt = FIRST
        self.tcb.snd_max = FIRST
        self.tcb.snd_end = FIRST
        self.tcb.snd_wnd = window
        self.tcb.snd_wscale = 14
        self.tcb.snd_max_wnd = <uint16_t>(window >> 14)
        self.tcb.options = <uint8_t>((OPT_SACK if sack else 0) | (OPT_TIMESTAMPS if timestamps else 0))
        ack_start(&self.c, self.tcb, False, 0)
        if control_provide(&self.c, control) != 0:
            raise MemoryError
        control_choose(self.tcb, control)
        control_begin(&self.c, self.tcb)
        if cwnd:
            self.tcb.cwnd = cwnd

    def __dealloc__(self) -> None:
        if self.tcb != NULL:
            transmissions_end(&self.c, self.tcb)
            control_end(&self.c, self.tcb)
            self.tcb.snd_head = 0
            tcb_release(&self.c, self.tcb)
            tcp_destroy(&self.c)

    @property
    def now_ns(self) -> int:
        """The time."""
        return self.c.now_ns

    @now_ns.setter
    def now_ns(self, uint64_t value) -> None:
        self.c.now_ns = value

    @property
    def timestamp(self) -> int:
        """What a segment sent now would carry."""
        return tcp_timestamp(&self.c)

    def send(self, int frames=1, uint32_t length=0) -> int:
        """New frames of `length` bytes (0: a segment); how many there were records for."""
        cdef uint32_t index, size = length if length else self.tcb.smss
        cdef int done = 0
        while done < frames:
            index = transmission_prepare(&self.c, self.tcb)
            if index == 0:
                break
            transmission_sent(&self.c, self.tcb, index, self.tcb.snd_nxt + size)
            self.tcb.snd_nxt += size
            self.tcb.snd_max = self.tcb.snd_nxt
            if self.tcb.snd_nxt - self.tcb.snd_end < 0x80000000u:
                self.tcb.snd_end = self.tcb.snd_nxt
            rexmit_start(&self.c, self.tcb)
            if not flight_raw(&self.c, self.tcb).flags & FLIGHT_LONE:
                repair_note_sent(&self.c, flight_of(&self.c, self.tcb), size, False)
            done += 1
        self.check()
        return done

    def queue(self, uint32_t length) -> None:
        """So much more waits to be sent."""
        self.tcb.snd_end += length

    def resend(self, int most=1 << 30) -> list[tuple[int, int]]:
        """Send again what is lost and the window has room for, segment by segment: (first byte, end) of each."""
        cdef flight_t *flight = flight_of(&self.c, self.tcb)
        cdef transmission_t *sent
        cdef uint32_t index
        done = []
        while flight != NULL and flight.to_resend.first and len(done) < most:
            index = flight.to_resend.first
            sent = transmission_at(&self.c, flight, index)
            if not flight.flags & FLIGHT_SEND_ONE and flight_pipe(flight) + self.tcb.smss > self.tcb.cwnd:
                break
            if transmission_bytes(sent) > self.tcb.smss:
                transmission_split(&self.c, flight, index, sent.seq + self.tcb.smss)
            flight.flags &= ~FLIGHT_SEND_ONE
            done.append((sent.seq - FIRST, sent.end - FIRST))
            transmission_resent(&self.c, self.tcb, flight, index)
            repair_note_sent(&self.c, flight, transmission_bytes(sent), True)
        self.check()
        return done

    def ack(self, uint32_t ack, *, object sack=(), object ecr=None, uint32_t window=0, bint check=True) -> int:
        """SEG.ACK, and SACK blocks; ecr: the echoed timestamp. Records looked at for it."""
        cdef segment_t seg
        cdef uint64_t before = self.steps
        memset(&seg, 0, sizeof(seg))
        seg.flags = ACK
        seg.ack = FIRST + ack
        for left, right in sack:
            seg.sack[seg.sack_count].left = FIRST + <uint32_t>left
            seg.sack[seg.sack_count].right = FIRST + <uint32_t>right
            seg.sack_count += 1
        if ecr is not None:
            seg.has = HAS_TIMESTAMPS
            seg.ts_ecr = <uint32_t>ecr
        self.tcb.flags &= ~TCB_LISTED
        self.c.work_head = 0
        self.c.work_tail = 0
        ack_input(&self.c, self.tcb, &seg, window if window else self.tcb.snd_wnd)
        if check:
            self.check()
        return self.steps - before

    @property
    def lone(self) -> bool:
        """What is in flight is one frame, of which only the least has been written (flight.pxd)."""
        return self.tcb.flight != 0 and flight_raw(&self.c, self.tcb).flags & FLIGHT_LONE != 0

    def write_out(self) -> None:
        """All of it is written from now on."""
        flight_of(&self.c, self.tcb)

    def image(self) -> tuple[bytes, bytes]:
        """The connection and its control, byte by byte, without a look at what is in flight."""
        cdef const cc_ops_t *ops = control_of(&self.c, self.tcb)
        return ((<const uint8_t *>self.tcb)[:sizeof(tcb_t)],
                (<const uint8_t *>control_state(&self.c, self.tcb, ops))[:ops.state_bytes])

    def rto(self) -> None:
        """The retransmission timer expires."""
        repair_on_rto(&self.c, self.tcb, flight_of(&self.c, self.tcb))
        self.tcb.backoff += 1
        self.tcb.cwnd = self.tcb.smss
        self.check()

    def smaller(self) -> None:
        """Segments have become smaller: everything goes again."""
        repair_resend(&self.c, self.tcb, flight_of(&self.c, self.tcb), 0)
        self.check()

    def reordering_timeout(self) -> None:
        """The reordering timer expires."""
        deadline_clear(self.tcb, DEADLINE_PROBE)
        repair_on_reordering_timeout(&self.c, self.tcb, flight_of(&self.c, self.tcb))
        self.check()

    def check(self) -> None:
        """The invariants of the record of transmissions."""
        if not flight_check(&self.c, self.tcb):
            raise AssertionError("flight_check")

    def records(self) -> list[tuple[int, int, str, int]]:
        """(first byte, end, "sent" | "sacked" | "lost", times sent), by sequence."""
        cdef flight_t *flight = flight_of(&self.c, self.tcb)
        cdef transmission_t *sent
        cdef uint32_t index = flight.head if flight != NULL else 0
        found = []
        while index:
            sent = transmission_at(&self.c, flight, index)
            where = "sacked" if sent.flags & TX_SACKED else "lost" if sent.flags & TX_LOST else "sent"
            found.append((sent.seq - FIRST, sent.end - FIRST, where, sent.sends))
            index = sent.next
        return found

    @property
    def steps(self) -> int:
        """Records looked at so far."""
        return self.counted()["transmission_steps"]

    def counted(self) -> dict[str, int]:
        """All counters."""
        return counters_as_dict(&self.counters)

    @property
    def held(self) -> tuple[int, int]:
        """Flights and further records in use."""
        return self.c.flights.in_use, self.c.transmissions.in_use

    @property
    def state(self) -> dict[str, object]:
        """The repair, and what the connection knows of its path."""
        cdef flight_t *flight = flight_of(&self.c, self.tcb)
        cdef dict known = {
            "cwnd": self.tcb.cwnd, "ssthresh": self.tcb.ssthresh, "una": self.tcb.snd_una - FIRST,
            "srtt_us": self.tcb.srtt_us, "rttvar_us": self.tcb.rttvar_us, "min_rtt_us": rtt_min_us(self.tcb),
            "backoff": self.tcb.backoff, "delivered": self.tcb.delivered,
            "reordered": bool(self.tcb.flags & TCB_REORDERED), "repair": "none",
            "multiplier": reordering_multiplier(self.tcb.reordering),
            "timer": bool(self.tcb.armed >> DEADLINE_REXMIT & 1), "probe": bool(self.tcb.armed >> DEADLINE_PROBE & 1),
        }
        if flight != NULL:
            known["repair"] = REPAIRS[flight.repair]
            known["pipe"] = flight_pipe(flight)
            known["sacked"] = flight.sacked_bytes
            known["lost"] = flight.lost_bytes
            known["lost_total"] = flight.lost
            known["window_us"] = rack_window_us(self.tcb, flight)
            known["reordering_timer"] = bool(flight.flags & FLIGHT_REORDER)
            known["probe_wanted"] = bool(flight.flags & FLIGHT_PROBE)
        return known


# ---------------------------------------------------------------- rules

def prr(uint32_t in_flight, uint32_t ssthresh, uint32_t recover_fs, uint32_t prr_delivered, uint32_t prr_out,
        uint32_t delivered, uint32_t smss, bint safe_ack=False) -> int:
    """SndCnt of RFC 9937 section 6.2."""
    return prr_send_count(in_flight, ssthresh, recover_fs, prr_delivered, prr_out, delivered, smss, safe_ack)


def recover_fs(uint32_t outstanding, uint32_t sacked, uint32_t newly_sacked, uint32_t newly_acked) -> int:
    """RecoverFS of RFC 9937 section 6.1."""
    return prr_recover_fs(outstanding, sacked, newly_sacked, newly_acked)


def reordering_window(bint seen, bint repairing, uint32_t sacked_segs, uint32_t multiplier, uint32_t min_rtt_us,
                      uint32_t srtt_us) -> int:
    """RACK_update_reo_wnd of RFC 8985 section 6.2 step 4, in microseconds."""
    return reordering_window_us(seen, repairing, sacked_segs, multiplier, min_rtt_us, srtt_us)


def reordering_after(uint8_t packed, bint widened) -> tuple[int, int]:
    """What tcb.reordering becomes after a round with duplicate SACKs, or a recovery; and the multiplier in it."""
    cdef uint8_t after = reordering_widened(packed) if widened else reordering_faded(packed)
    return after, reordering_multiplier(after)


def probe_timeout(uint32_t srtt_us, bint one_segment) -> int:
    """PTO of RFC 8985 section 7.2, before the RTO bounds it, in microseconds."""
    return tlp_timeout_us(srtt_us, one_segment)


def frto(int step, *, bint moved, bint complete=False, bint original=False, bint repeated=False,
         bint beyond=False, bint can_send=True, bint selective=False) -> str:
    """One step of RFC 5682: "go on", "send new", "lost" or "spurious"."""
    return ("go on", "send new", "lost", "spurious")[
        frto_step(step, moved, complete, original, repeated, beyond, can_send, selective)]


def path_search_size(uint32_t low, uint32_t high, bint top_first=False) -> int:
    """RFC 4821 section 7.3: the packet to try next; 0: none."""
    return search_size(low, high, top_first)


def path_black_hole_size(uint32_t packet_bytes, uint32_t base) -> int:
    """RFC 4821 section 7.7: the packet to send where those of so many bytes do not arrive."""
    return black_hole_size(packet_bytes, base)


def path_probe_wait(uint32_t cwnd, uint32_t smss, uint32_t srtt_us) -> int:
    """RFC 4821 section 7.6.2: nanoseconds between a probe that failed and the next one."""
    return probe_wait_ns(cwnd, smss, srtt_us)


def accecn_marks(uint32_t ace, uint32_t s_cep, uint32_t segments) -> tuple[int, int]:
    """(least, most) marks that an ACK of so many segments can tell of (RFC 9768 appendix A.2.1)."""
    cdef uint32_t least = marks_least(ace, s_cep)
    return least, marks_most(least, segments)


def accecn_marks_by_bytes(uint32_t least, uint32_t most, uint32_t ceb, uint32_t smss) -> int:
    """Which of the two, if so many bytes were marked (RFC 9768 appendix A.2.2)."""
    return marks_by_bytes(least, most, ceb, smss)
