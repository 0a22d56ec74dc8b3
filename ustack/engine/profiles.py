# SPDX-License-Identifier: MIT
"""Defaults of a Stack's settings under a name: Stack(link, profile="linux").

A profile is nothing but this table: whatever differs is a setting of its own, and one that is named beside the profile
overrides it. `rfc` is the defaults themselves. `linux` has what the kernel's TCP does where the RFCs leave a choice, or
say SHOULD and it does not, so that suites written against its policy can judge this stack.

Each value was seen on the wire or is a sysctl of Linux 6.18; tests/net/test_kernel_profile.py asks the machine's kernel
again. Where kernels differ among each other the comment says so. Above: settings. Below: nothing.
"""

MS = 1_000_000
SECOND = 1_000 * MS

PROFILES: dict[str, dict[str, int]] = {
    "rfc": {},
    "linux": {
        # SYN: 64,240 is 44 segments of 1,460; SYN-ACK with timestamps: 65,160 is 45 of 1,448
        "rcv_buffer_bytes": 65536,
        "whole_first_window": 1,
        # tcp_rmem, the largest: window scale 7. Kernels of 2025 and later have 32 MiB, and scale 10
        "rcv_buffer_max_bytes": 6 << 20,
        "quick_acks": 16,
        "ack_second_segment": 1,
        "push_frames": 1,
        "window_growth": 1,
        "window_probe_bytes": 0,
        # RTO = SRTT + max(200 ms, 4 RTTVAR); tcp_rto_min_us, tcp_rto_max_ms
        "rto_min_ns": 200 * MS,
        "rto_variance_min_ns": 200 * MS,
        "rto_max_ns": 120 * SECOND,
        "backlog_extra": 1,
        # tcp_invalid_ratelimit, for keep-alives as well; tcp_challenge_ack_limit: none in total, here the most there is
        "corrective_interval_ns": 500 * MS,
        "probe_answers_limited": 1,
        "challenge_acks_per_second": 1 << 24,
        "mtu_probing": 0,  # tcp_mtu_probing
        "pacing": 0,  # unless a control or a queueing discipline paces
    },
}


def profile_settings(name: str) -> dict[str, int]:
    """The settings in which a profile differs from the defaults, and those it repeats. Raises ValueError."""
    if name not in PROFILES:
        raise ValueError(f"profile {name!r}: there is none; there are: {', '.join(PROFILES)}")
    return PROFILES[name]
