# SPDX-License-Identifier: MIT
"""ARP: questions, answers, conflicts."""

from libc.stdint cimport UINT64_MAX, uint8_t, uint16_t, uint32_t
from libc.stdlib cimport free
from libc.string cimport memcpy, memset

from ustack.base.counters cimport count, counter_t
from ustack.base.types cimport ip_addr_set_v4, ip_addr_t
from ustack.ip.neighbour cimport (
    NEIGHBOUR_FAILED, NEIGHBOUR_FREE, NEIGHBOUR_INCOMPLETE, NEIGHBOUR_PROBE, NEIGHBOUR_REACHABLE, NEIGHBOUR_STALE,
    neighbour_due, neighbour_find, neighbour_insert, neighbour_move, neighbour_promote, neighbour_state_t, neighbour_t,
    neighbour_take, waiting_frame, waiting_t)
from ustack.ip.ranges cimport ranges_nth, ranges_size
from ustack.ip.records cimport (
    IP_DEFENCES, ip_defence_t, ip_is_foreign_host, ip_is_own, ip_on_link, ip_t)
from ustack.link.device cimport offload_t
from ustack.wire.arp cimport ARP_BYTES, ARP_REPLY, ARP_REQUEST, arp_emit, arp_parse, arp_t
from ustack.wire.ethernet cimport ETHERNET_HEADER_BYTES, ETHERTYPE_ARP, ethernet_emit, mac_equal

cdef enum:
    # RFC 5227 section 1.1
    ANNOUNCE_NUM = 2
    ANNOUNCE_INTERVAL_S = 2
    DEFEND_INTERVAL_S = 10
    ANNOUNCED_MOST = 4096                        # addresses in ranges; the rest is found by who asks, as any address is
    ANNOUNCED_A_TIME = 64                        # so 1,000 broadcasts per second, for twice four seconds at most
    ANNOUNCE_PAUSE_MS = 64
    RING_RETRY_NS = 50000                        # a ring that was full is tried again after this long
    QUESTIONS_A_TURN = 256                       # asked again or given up; the rest is due at once in the next turn


# ---------------------------------------------------------------- out
cdef bint _send(ip_t *ip, uint16_t operation, uint32_t sender_be, const uint8_t *destination,
                const uint8_t *target_mac, uint32_t target_be) noexcept nogil:
    # sender_be: the one of our addresses that this is about. False: the ring is full.
    cdef offload_t whole
    cdef arp_t arp
    cdef uint8_t *frame = ip.link.ops.tx_reserve(ip.link, ETHERNET_HEADER_BYTES + ARP_BYTES)
    if frame == NULL:
        count(ip.counters, counter_t.TX_RING_FULL)
        return False
    arp.operation = operation
    memcpy(arp.sender_mac, ip.link.mac, 6)
    arp.sender_be = sender_be
    memcpy(arp.target_mac, target_mac, 6)
    arp.target_be = target_be
    ethernet_emit(frame, destination, ip.link.mac, ETHERTYPE_ARP)
    arp_emit(frame + ETHERNET_HEADER_BYTES, &arp)
    memset(&whole, 0, sizeof(whole))
    ip.link.ops.tx_commit(ip.link, ETHERNET_HEADER_BYTES + ARP_BYTES, &whole)
    count(ip.counters, counter_t.ARP_REQUESTS_OUT if operation == ARP_REQUEST else counter_t.ARP_REPLIES_OUT)
    return True


cdef bint _request(ip_t *ip, uint32_t sender_be, uint32_t target_be, const uint8_t *station) noexcept nogil:
    # station: NULL for a broadcast, or the one that is asked whether it is still there (RFC 1122 section 2.3.2.1).
    cdef uint8_t everybody[6]
    cdef uint8_t unknown[6]
    memset(everybody, 0xFF, 6)
    memset(unknown, 0, 6)
    if station == NULL:
        station = everybody
    return _send(ip, ARP_REQUEST, sender_be, station, unknown, target_be)


cdef void arp_announce(ip_t *ip) noexcept nogil:
    ip.announced = 0
    ip.announce_rounds = ANNOUNCE_NUM
    arp_announce_more(ip)


cdef uint32_t _announced_be(const ip_t *ip, uint32_t number) noexcept nogil:
    # The address with this number among those that are announced: the first one, then those in ranges.
    cdef ip_addr_t address
    if number == 0:
        return ip.address_be
    ranges_nth(ip.config.ranges, ip.config.range_count, number - 1, &address)
    return address.words_be[3]


cdef void arp_announce_more(ip_t *ip) noexcept nogil:
    # RFC 5227 section 2.3: ANNOUNCE_NUM times, ANNOUNCE_INTERVAL apart, so that nobody keeps an old entry who has
    # missed one broadcast; the address may be used right after the first. Here a round takes all addresses, and the
    # next one begins that long after it, so that each address has at least the interval.
    # A link may have thousands of our addresses, and every station on it takes each broadcast: they are spread over
    # time, and of ranges only the first ANNOUNCED_MOST are announced at all (65,536 would be two minutes of nothing
    # else). That section's MUST has one purpose, "to make sure that other hosts on the link do not have stale ARP
    # cache entries": a station that still has one for an address that is left out finds out as it does when a host has
    # moved in silence, by the probe of its own cache (RFC 1122 section 2.3.2.1). A full ring ends the burst: the rest
    # waits for the next one.
    cdef uint32_t wanted = ranges_size(ip.config.ranges, ip.config.range_count)
    cdef uint32_t left = ANNOUNCED_A_TIME
    cdef uint32_t address_be
    wanted = 1 + (wanted if wanted < ANNOUNCED_MOST else ANNOUNCED_MOST)
    while ip.announced < wanted and left > 0:
        address_be = _announced_be(ip, ip.announced)
        if (ip.announced == 0 or address_be != ip.address_be) and not _request(ip, address_be, address_be, NULL):
            break
        ip.announced += 1
        left -= 1
    ip.announce_ns = ip.now_ns + ANNOUNCE_PAUSE_MS * 1000000ULL
    if ip.announced == wanted:
        ip.announced = 0
        ip.announce_rounds -= 1
        ip.announce_ns = ip.now_ns + ANNOUNCE_INTERVAL_S * 1000000000ULL if ip.announce_rounds else UINT64_MAX


cdef bint _ask(ip_t *ip, uint16_t index, neighbour_state_t state) noexcept nogil:
    # Enter or stay in `state` with one more question sent. A full ring (False) costs no try: the question is due at
    # once, but none is asked before ip.questions_ns, or who waits for the device would go around without a pause.
    cdef neighbour_t *entry = &ip.neighbours.entries[index]
    cdef bint sent = _request(ip, ip.address_be, entry.address.words_be[3],
                              entry.mac if state == NEIGHBOUR_PROBE else NULL)
    neighbour_move(ip.neighbours, index, state, ip.now_ns + (ip.config.neighbour_retry_ns if sent else 0))
    entry.tries += sent
    if not sent:
        ip.questions_ns = ip.now_ns + RING_RETRY_NS
    return sent


cdef bint arp_use(ip_t *ip, uint16_t index) noexcept nogil:
    cdef neighbour_t *entry = &ip.neighbours.entries[index]
    entry.used = 1
    if entry.state == NEIGHBOUR_REACHABLE and ip.now_ns < entry.fresh_until_ns:
        return True
    if entry.state == NEIGHBOUR_REACHABLE or entry.state == NEIGHBOUR_STALE:
        neighbour_promote(ip.neighbours, index)
        _ask(ip, index, NEIGHBOUR_PROBE)
        return True
    if entry.state == NEIGHBOUR_FREE or entry.state == NEIGHBOUR_FAILED:
        _ask(ip, index, NEIGHBOUR_INCOMPLETE)
    return entry.state == NEIGHBOUR_PROBE


cdef void _keep_unreached(ip_t *ip, uint16_t index) noexcept nogil:
    # Whose packets they are should know that nobody is there: the caller of ip_timers takes them (ip_take_unreached).
    cdef waiting_t *waiting = neighbour_take(ip.neighbours, index)
    while waiting != NULL:
        count(ip.counters, counter_t.DROP_NEIGHBOUR_UNRESOLVED)
        waiting.next = NULL
        if ip.unreached == NULL:
            ip.unreached = waiting
        else:
            ip.unreached_last.next = waiting
        ip.unreached_last = waiting
        waiting = neighbour_take(ip.neighbours, index)


cdef void arp_timers(ip_t *ip) noexcept nogil:
    cdef neighbour_t *entry
    cdef uint16_t index = neighbour_due(ip.neighbours, ip.now_ns)
    cdef uint32_t left = QUESTIONS_A_TURN if ip.questions_ns <= ip.now_ns else 0
    while index and left > 0:
        left -= 1
        entry = &ip.neighbours.entries[index]
        if entry.tries >= ip.config.neighbour_tries:
            _keep_unreached(ip, index)
            neighbour_move(ip.neighbours, index, NEIGHBOUR_FAILED, 0)
        else:
            if not _ask(ip, index, <neighbour_state_t>entry.state):
                return                           # the ring is full: everything else that is due waits as well
        index = neighbour_due(ip.neighbours, ip.now_ns)


# ---------------------------------------------------------------- in
cdef void _flush(ip_t *ip, uint16_t index) noexcept nogil:
    # Send what waited. The ring is made room in once; what still does not fit is lost like any frame on a full link.
    cdef neighbour_t *entry = &ip.neighbours.entries[index]
    cdef waiting_t *waiting = neighbour_take(ip.neighbours, index)
    cdef uint8_t *frame
    while waiting != NULL:
        frame = ip.link.ops.tx_reserve(ip.link, waiting.length)
        if frame == NULL:
            ip.link.ops.tx_submit(ip.link)
            frame = ip.link.ops.tx_reserve(ip.link, waiting.length)
        if frame == NULL:
            count(ip.counters, counter_t.TX_RING_FULL)
            count(ip.counters, counter_t.DROP_NEIGHBOUR_UNRESOLVED)
        else:
            memcpy(frame, waiting_frame(waiting), waiting.length)
            memcpy(frame, entry.mac, 6)
            ip.link.ops.tx_commit(ip.link, waiting.length, &waiting.offload)
        free(waiting)
        waiting = neighbour_take(ip.neighbours, index)


cdef void arp_confirm(ip_t *ip, uint16_t index) noexcept nogil:
    cdef neighbour_t *entry = &ip.neighbours.entries[index]
    if entry.state != NEIGHBOUR_REACHABLE:
        neighbour_move(ip.neighbours, index, NEIGHBOUR_REACHABLE, 0)
    entry.fresh_until_ns = ip.now_ns + ip.config.neighbour_reachable_ns
    if entry.first != NULL:
        _flush(ip, index)


cdef void _update(ip_t *ip, uint16_t index, const arp_t *arp, bint answer) noexcept nogil:
    # RFC 826: any packet of a known sender brings its table entry up to date. Only an answer to our own question proves
    # that the neighbour hears us as well; anything else leaves a question for the next use, unless it says nothing new.
    cdef neighbour_t *entry = &ip.neighbours.entries[index]
    cdef bint asked = entry.state == NEIGHBOUR_INCOMPLETE or entry.state == NEIGHBOUR_PROBE
    cdef bint known = entry.state == NEIGHBOUR_REACHABLE or entry.state == NEIGHBOUR_STALE \
        or entry.state == NEIGHBOUR_PROBE
    cdef bint changed = not known or not mac_equal(entry.mac, arp.sender_mac)
    cdef bint in_use = entry.state == NEIGHBOUR_REACHABLE or entry.used
    memcpy(entry.mac, arp.sender_mac, 6)
    if asked and answer:
        arp_confirm(ip, index)
    elif changed:
        neighbour_move(ip.neighbours, index, NEIGHBOUR_STALE, 0)
        if in_use:
            neighbour_promote(ip.neighbours, index)
        _flush(ip, index)


cdef ip_defence_t *_defence_of(ip_t *ip, uint32_t address_be) noexcept nogil:
    # Where this address's last defence is remembered, or a place that is free for it. NULL: every place has a defence
    # of another address that is not over yet.
    cdef ip_defence_t *free_place = NULL
    cdef ip_defence_t *place
    cdef uint32_t i
    if address_be == ip.address_be:
        return &ip.defences[0]
    for i in range(<uint32_t>1, <uint32_t>IP_DEFENCES):
        place = &ip.defences[i]
        if ip.now_ns >= place.again_ns:
            if free_place == NULL:
                free_place = place
        elif place.address_be == address_be:
            return place
    return free_place


cdef void _conflict(ip_t *ip, uint32_t address_be) noexcept nogil:
    # RFC 5227 section 2.4 (c): a server keeps its address, and says so at most once in DEFEND_INTERVAL. Each address
    # has an interval of its own: or one conflict would silence the defence of all others. Who claims one of ours after
    # the other has IP_DEFENCES broadcasts for it in an interval, not one for each claim, and never the first address's.
    cdef ip_defence_t *place = _defence_of(ip, address_be)
    count(ip.counters, counter_t.ARP_CONFLICTS)
    if place == NULL:
        count(ip.counters, counter_t.ARP_CONFLICTS_UNANSWERED)
    elif ip.now_ns >= place.again_ns and _request(ip, address_be, address_be, NULL):
        place.address_be = address_be
        place.again_ns = ip.now_ns + DEFEND_INTERVAL_S * 1000000000ULL


cdef void arp_input(ip_t *ip, const uint8_t *packet, uint32_t length) noexcept nogil:
    cdef arp_t arp
    cdef ip_addr_t sender
    cdef uint16_t index
    cdef bint for_us
    cdef int reason = arp_parse(packet, length, &arp)
    if reason:
        count(ip.counters, <counter_t>reason)
        return
    if mac_equal(arp.sender_mac, ip.link.mac):           # our own frame, sent back by some bridge
        count(ip.counters, counter_t.DROP_ARP_NOT_FOR_US)
        return
    if ip_is_own(ip, arp.sender_be):
        _conflict(ip, arp.sender_be)
        return
    for_us = ip_is_own(ip, arp.target_be)
    ip_addr_set_v4(&sender, arp.sender_be)
    index = neighbour_find(ip.neighbours, &sender)       # never there for 0.0.0.0
    if index == 0 and not for_us:
        count(ip.counters, counter_t.DROP_ARP_NOT_FOR_US)
        return
    # RFC 826: a sender that talks to us is worth remembering, if it is one that we could talk to.
    if index == 0 and ip_on_link(ip, arp.sender_be) and ip_is_foreign_host(ip, arp.sender_be):
        index = neighbour_insert(ip.neighbours, &sender, False)
    if index:
        _update(ip, index, &arp, for_us and arp.operation == ARP_REPLY)
    if for_us and arp.operation == ARP_REQUEST:
        _send(ip, ARP_REPLY, arp.target_be, arp.sender_mac, arp.sender_mac, arp.sender_be)
