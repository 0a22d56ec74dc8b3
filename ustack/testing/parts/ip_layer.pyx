# SPDX-License-Identifier: MIT
"""The IP layer alone, for tests: frames in by hand, packets out into a link (link/memory).

It must not be used by the stack: everything here copies. Neighbours: above, tests/unit/ip; below, ip, link.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from ustack.base.address cimport ip_addr_from_text, ip_addr_text, ip_interface_from_text
from ustack.base.bytestring cimport bytes_from, data_of
from ustack.base.counters cimport counters_as_dict, counters_t
from ustack.base.types cimport ip_addr_t
from ustack.buf.frame cimport CHECKSUM_PARTIAL, CHECKSUM_UNKNOWN, CHECKSUM_VERIFIED, frame_t
from ustack.ip.layer cimport (
    IP_CONSUMED, IP_NO_MEMORY, IP_NO_ROUTE, IP_OK, IP_RING_FULL, IP_TCP, IP_TCP_ERROR, ip_announce, ip_commit,
    ip_config_defaults, ip_config_t, ip_confirm, ip_destroy, ip_init, ip_input, ip_is_local, ip_is_valid_remote,
    ip_next_deadline, ip_payload_max, ip_payload_mtu, ip_reserve, ip_route_t, ip_t, ip_timers, packet_t)
from ustack.ip.neighbour cimport (
    NEIGHBOUR_FAILED, NEIGHBOUR_FREE, NEIGHBOUR_INCOMPLETE, NEIGHBOUR_PROBE, NEIGHBOUR_REACHABLE, NEIGHBOUR_STALE,
    neighbour_t)
from ustack.link.device cimport Link

cdef dict CHECKSUMS = {
    "unknown": CHECKSUM_UNKNOWN, "verified": CHECKSUM_VERIFIED, "partial": CHECKSUM_PARTIAL,
}
cdef dict VERDICTS = {IP_CONSUMED: "consumed", IP_TCP: "tcp", IP_TCP_ERROR: "tcp_error"}
cdef dict STATUSES = {
    IP_OK: "ok", IP_RING_FULL: "ring_full", IP_NO_ROUTE: "no_route", IP_NO_MEMORY: "no_memory",
}
cdef dict STATES = {
    NEIGHBOUR_INCOMPLETE: "INCOMPLETE", NEIGHBOUR_REACHABLE: "REACHABLE", NEIGHBOUR_STALE: "STALE",
    NEIGHBOUR_PROBE: "PROBE", NEIGHBOUR_FAILED: "FAILED",
}


cdef class IpLayer:
    """One ip_t on any link. Times are given by the caller; config: the scalar names of ip_config_t."""

    cdef ip_t ip
    cdef counters_t c
    cdef readonly Link link
    cdef ip_addr_t last                          # where the last packet was sent
    cdef readonly int hint                       # what the last send left in its neighbour hint

    def __init__(self, link: Link, address: str = "198.18.0.2/24", gateway: str | None = None, *,
                 now_ns: int = 0, **config: int) -> None:
        cdef ip_config_t settings
        cdef int prefix_length = 0
        self.link = link
        ip_config_defaults(&settings)
        ip_interface_from_text(address, &settings.address, &prefix_length)
        settings.prefix_length = prefix_length
        if gateway is not None:
            ip_addr_from_text(gateway, &settings.gateway)
        for name, value in config.items():
            if name == "ttl":
                settings.ttl = value
            elif name == "neighbour_reachable_ns":
                settings.neighbour_reachable_ns = value
            elif name == "neighbour_retry_ns":
                settings.neighbour_retry_ns = value
            elif name == "neighbour_tries":
                settings.neighbour_tries = value
            elif name == "neighbour_queue":
                settings.neighbour_queue = value
            elif name == "neighbour_limit":
                settings.neighbour_limit = value
            else:
                raise TypeError(f"no such setting: {name}")
        ip_destroy(&self.ip)
        memset(&self.c, 0, sizeof(counters_t))
        if ip_init(&self.ip, &link.c, &self.c, &settings, now_ns) != 0:
            raise MemoryError

    def __dealloc__(self) -> None:
        ip_destroy(&self.ip)

    def input(self, frame: bytes, now_ns: int = 0, *, checksum: str = "unknown", gso_size: int = 0,
              wire_length: int | None = None, vlan_id: int = 0) -> tuple[str, dict[str, object]]:
        """One frame in: the verdict's name, and packet_t by field (empty if the frame was consumed)."""
        cdef frame_t view
        cdef packet_t packet
        cdef size_t length = len(frame)
        cdef uint8_t *data = <uint8_t *>malloc(length or 1)
        if data == NULL:
            raise MemoryError
        try:
            memcpy(data, data_of(frame), length)
            memset(&packet, 0, sizeof(packet))
            view.data = data
            view.length = <uint32_t>length
            view.wire_length = <uint32_t>length if wire_length is None else wire_length
            view.gso_size = gso_size
            view.vlan_id = vlan_id
            view.checksum = CHECKSUMS[checksum]
            self.link.c.now_ns = now_ns
            verdict = VERDICTS[<int>ip_input(&self.ip, &view, &packet, now_ns)]
            if verdict == "consumed":
                return verdict, {}
            return verdict, {
                "src": ip_addr_text(&packet.src), "dst": ip_addr_text(&packet.dst),
                "payload": bytes_from(packet.payload, packet.payload_length),
                "gso_size": packet.gso_size, "checksum": packet.checksum, "tos": packet.tos, "ttl": packet.ttl,
                "broadcast": packet.broadcast, "icmp_type": packet.icmp_type, "icmp_code": packet.icmp_code,
                "icmp_mtu": packet.icmp_mtu,
            }
        finally:
            free(data)

    def send(self, dst: str, protocol: int, payload: bytes, csum_offset: int, *, now_ns: int = 0,
             header_length: int = 20, gso_size: int = 0, tos: int = 0, ttl: int = 64, src: str | None = None,
             hint: int = 0, reserve: int | None = None, commit: bool = True,
             identification: int | None = None) -> str:
        """Reserve, write, commit; the status's name.

        reserve: bytes to ask for; commit=False leaves it at that. identification: not None: with it, and DF clear.
        """
        cdef ip_addr_t source, destination
        cdef ip_route_t route
        cdef uint16_t neighbour = hint
        cdef int status = -1
        cdef uint8_t *out
        source = self.ip.config.address
        if src is not None:
            ip_addr_from_text(src, &source)
        ip_addr_from_text(dst, &destination)
        route.src = &source
        route.dst = &destination
        route.neighbour = &neighbour
        route.protocol = protocol
        route.tos = tos
        route.ttl = ttl
        route.may_fragment = identification is not None
        route.identification = identification or 0
        self.last = destination
        self.link.c.now_ns = now_ns
        out = ip_reserve(&self.ip, &route, len(payload) if reserve is None else reserve, &status, now_ns)
        self.hint = neighbour
        if (out != NULL) != (status == IP_OK):
            raise AssertionError("a reservation without room, or room without one")
        if out != NULL and commit:
            memset(&source, 0xEE, sizeof(source))        # nothing of the route is read any more
            memset(&destination, 0xEE, sizeof(destination))
            memcpy(out, data_of(payload), len(payload))
            ip_commit(&self.ip, len(payload), csum_offset, header_length, gso_size)
        return STATUSES[status]

    def timers(self, now_ns: int) -> int | None:
        """ip_timers; None for never."""
        self.link.c.now_ns = now_ns
        next_ns = ip_timers(&self.ip, now_ns)
        if next_ns != ip_next_deadline(&self.ip):
            raise AssertionError("two answers to when there is something to do")
        return None if next_ns == 0xFFFFFFFFFFFFFFFF else next_ns

    def announce(self, now_ns: int = 0) -> None:
        """One gratuitous ARP."""
        self.link.c.now_ns = now_ns
        ip_announce(&self.ip, now_ns)

    def confirm(self, hint: int, now_ns: int, address: str | None = None) -> None:
        """What TCP does when `address` (None: where the last packet went) has acknowledged something."""
        cdef ip_addr_t confirmed = self.last
        if address is not None:
            ip_addr_from_text(address, &confirmed)
        ip_confirm(&self.ip, hint, &confirmed, now_ns)

    def is_valid_remote(self, address: str) -> bool:
        """True for an address that a connection may be opened to."""
        cdef ip_addr_t parsed
        ip_addr_from_text(address, &parsed)
        return bool(ip_is_valid_remote(&self.ip, &parsed))

    def is_local(self, address: str) -> bool:
        """True for our own address."""
        cdef ip_addr_t parsed
        ip_addr_from_text(address, &parsed)
        return bool(ip_is_local(&self.ip, &parsed))

    @property
    def payload_mtu(self) -> int:
        """Largest transport length of an ordinary packet."""
        return ip_payload_mtu(&self.ip)

    @property
    def payload_max(self) -> int:
        """Largest transport length of a super-frame."""
        return ip_payload_max(&self.ip)

    @property
    def waiting_bytes(self) -> int:
        """Memory behind the packets that wait for a neighbour."""
        return self.ip.neighbours.waiting_bytes

    def counters(self) -> dict[str, int]:
        """Every counter that is not zero, by name."""
        return {name: value for name, value in counters_as_dict(&self.c).items() if value}

    def neighbours(self, now_ns: int = 0) -> dict[str, dict[str, object]]:
        """The table by address: state, mac, waiting, tries."""
        cdef neighbour_t *entry
        cdef int i
        table = {}
        for i in range(1, self.ip.neighbours.limit + 1):
            entry = &self.ip.neighbours.entries[i]
            if entry.state == NEIGHBOUR_FREE:
                continue
            state = STATES[<int>entry.state]
            if state == "REACHABLE" and now_ns >= entry.fresh_until_ns:
                state = "STALE"
            table[ip_addr_text(&entry.address)] = {
                "state": state, "mac": ":".join(f"{entry.mac[k]:02x}" for k in range(6)),
                "waiting": entry.waiting, "tries": entry.tries,
            }
        return table
