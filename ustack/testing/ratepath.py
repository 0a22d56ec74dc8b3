# SPDX-License-Identifier: MIT
"""A path of plain numbers for a congestion control that paces: one bottleneck, a queue, a round trip, losses.

It sends what the control's rate and window allow, counts as draft-ietf-ccwg-bbr section 4.1 says (C., P. and RS.), and
hands the control each ACK and each loss. There is no TCP in it: one number per segment, repaired in no time (what is
lost is not sent again; a stream has no end). Losses are found when three segments sent later have arrived.

    path = RatePath("bbr", rate_bytes=12_500_000, rtt_us=20_000, queue_bytes=250_000)
    path.run(seconds=10)
    path.throughput(since_s=2), path.largest_queue(since_s=2)

Below: parts/controls.
"""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass

from ustack.testing.parts.controls import Control

SECOND = 1_000_000_000
REORDERED = 3


@dataclass(slots=True, eq=False)
class Segment:
    """P. of the draft."""

    number: int
    sent_ns: int
    delivered: int
    delivered_ns: int
    first_sent_ns: int
    in_flight: int
    lost: int
    app_limited: bool
    acked_ns: int | None  # None: it will be lost


class RatePath:
    """See the module's words. app_rate_bytes: what the application writes per second; 0: always enough."""

    def __init__(
        self,
        name: str,
        *,
        rate_bytes: int,
        rtt_us: int,
        queue_bytes: int,
        smss: int = 1448,
        loss: float = 0.0,
        app_rate_bytes: int = 0,
        seed: int = 1,
    ) -> None:
        self.smss, self.rate, self.rtt_ns, self.queue_limit = smss, rate_bytes, rtt_us * 1000, queue_bytes
        self.loss, self.generator, self.app_rate = loss, random.Random(seed), app_rate_bytes
        self.now_ns = SECOND
        self.control = Control(name, smss, 10 * smss, now_ns=self.now_ns, srtt_us=rtt_us, seed=seed)
        self.flight: deque[Segment] = deque()  # in the order of sending, which is that of arrival
        self.in_flight = self.delivered = self.lost = self.sent = self.app_limited = 0
        self.delivered_ns = self.first_sent_ns = self.now_ns
        self.next_send_ns = self.free_ns = self.began_ns = self.now_ns
        self.recover = -1  # the repair ends when a segment sent after this has arrived
        self.states: list[tuple[float, int, int, int]] = []  # (s, state, delivered, queue) at each ACK
        self.losses = 0

    # ---------------------------------------------------------------- measurements

    def throughput(self, since_s: float, until_s: float = 1e9) -> float:
        """Delivered bytes per second."""
        rows = [row for row in self.states if since_s <= row[0] <= until_s]
        return (rows[-1][2] - rows[0][2]) / (rows[-1][0] - rows[0][0])

    def largest_queue(self, since_s: float) -> int:
        """Bytes that an arriving segment found before it."""
        return max(row[3] for row in self.states if row[0] >= since_s)

    def mean_queue(self, since_s: float) -> float:
        """The same on average."""
        rows = [row[3] for row in self.states if row[0] >= since_s]
        return sum(rows) / len(rows)

    # ---------------------------------------------------------------- sending

    def _queue(self) -> int:
        return max(self.free_ns - self.now_ns, 0) * self.rate // SECOND

    def _written(self) -> bool:
        if not self.app_rate:
            return True
        return self.sent * self.smss < (self.now_ns - self.began_ns) * self.app_rate // SECOND

    def _send(self) -> None:
        if self.in_flight == 0:
            self.control.now_ns = self.now_ns
            if self.sent:
                self.control.on_start()
            self.first_sent_ns = self.delivered_ns = self.now_ns
        self.in_flight += self.smss
        queue = self._queue()
        gone = queue + self.smss > self.queue_limit or self.generator.random() < self.loss
        if not gone:
            self.free_ns = max(self.free_ns, self.now_ns) + self.smss * SECOND // self.rate
        self.flight.append(
            Segment(
                self.sent,
                self.now_ns,
                self.delivered,
                self.delivered_ns,
                self.first_sent_ns,
                self.in_flight,
                self.lost,
                self.app_limited != 0,
                None if gone else self.free_ns + self.rtt_ns,
            )
        )
        self.sent += 1
        rate = self.control.pacing_rate
        # As output does: a timer that is late is made up for, by up to a millisecond.
        self.next_send_ns = max(self.next_send_ns, self.now_ns - 1_000_000)
        if rate:
            self.next_send_ns += self.smss * SECOND // rate

    def _pump(self) -> int | None:
        """Send what may go now. When more may, if the window is no obstacle."""
        while self.in_flight + self.smss <= self.control.window[0]:
            if not self._written():
                self.app_limited = self.delivered + self.in_flight or 1
                return self.began_ns + (self.sent * self.smss + 1) * SECOND // self.app_rate + 1
            if self.next_send_ns > self.now_ns:
                return self.next_send_ns
            self._send()
        return None

    # ---------------------------------------------------------------- what comes back

    def _find_losses(self, until: int) -> None:
        """Segments before `until` that have not arrived: they are the first ones, because arrivals keep the order."""
        while self.flight and self.flight[0].number < until and self.flight[0].acked_ns is None:
            self._lose(self.flight.popleft())

    def _lose(self, segment: Segment) -> None:
        self.in_flight -= self.smss
        self.lost += self.smss
        self.losses += 1
        self.control.on_lost(
            segment.number * self.smss & 0xFFFFFFFF,
            self.smss,
            in_flight=segment.in_flight,
            lost=self.lost - segment.lost,
            delivered_total=self.delivered & 0xFFFFFFFF,
            app_limited=segment.app_limited,
        )
        if segment.number > self.recover:
            self.recover = self.sent - 1
            self.control.on_loss(self.in_flight + self.smss)

    def _acknowledge(self, segment: Segment) -> None:
        self.control.now_ns = self.now_ns
        prior = self.in_flight
        self.in_flight -= self.smss
        self.delivered += self.smss
        self.delivered_ns = self.now_ns
        interval_ns = max(segment.sent_ns - segment.first_sent_ns, self.now_ns - segment.delivered_ns)
        self.first_sent_ns = segment.sent_ns
        self._find_losses(segment.number - REORDERED + 1)
        if self.app_limited and self.delivered > self.app_limited:
            self.app_limited = 0
        self.control.on_sample(
            acked=self.smss,
            delivered=self.smss,
            rtt_us=(self.now_ns - segment.sent_ns) // 1000,
            flight=prior,
            prior_in_flight=prior,
            in_flight=self.in_flight,
            in_recovery=segment.number <= self.recover,
            is_app_limited=segment.app_limited,
            delivered_total=self.delivered & 0xFFFFFFFF,
            rate_delivered=self.delivered - segment.delivered,
            rate_interval_us=interval_ns // 1000 if interval_ns >= self.rtt_ns else 0,
            rate_prior_delivered=segment.delivered & 0xFFFFFFFF,
            rate_in_flight=segment.in_flight,
            rate_lost=self.lost - segment.lost,
        )
        if self.control.holds_samples:
            self.app_limited = self.delivered + self.in_flight or 1
        state = self.control.bbr()["state"]
        self.states.append(((self.now_ns - SECOND) / SECOND, state, self.delivered, self._queue()))

    def _time_out(self) -> None:
        """A retransmission timer of a second: everything is lost."""
        self.now_ns += SECOND
        self.control.now_ns = self.now_ns
        flight = self.in_flight
        while self.flight:
            self._lose(self.flight.popleft())
        self.control.on_rto(flight)

    def idle(self, seconds: float) -> None:
        """Let everything arrive, then write nothing for a while."""
        self.app_rate, self.began_ns = 1, self.now_ns
        while self.flight:
            self.run_once()
        self.now_ns += int(seconds * SECOND)
        self.app_rate = 0

    def phases(self) -> list[tuple[float, int]]:
        """(s, state) where the state has changed."""
        changes: list[tuple[float, int]] = []
        for seconds, state, _, _ in self.states:
            if not changes or changes[-1][1] != state:
                changes.append((seconds, state))
        return changes

    def run(self, seconds: float) -> None:
        """For so long."""
        end_ns = self.now_ns + int(seconds * SECOND)
        while self.now_ns < end_ns:
            self.run_once()

    def run_once(self) -> None:
        """To the next event."""
        wake_ns = self._pump()
        arrival = next((segment for segment in self.flight if segment.acked_ns is not None), None)
        if arrival is None and wake_ns is None:
            self._time_out()
            return
        self.now_ns = min(ns for ns in (wake_ns, arrival.acked_ns if arrival else None) if ns is not None)
        if arrival is not None and arrival.acked_ns == self.now_ns:
            self.flight.remove(arrival)
            self._acknowledge(arrival)
