# SPDX-License-Identifier: MIT
"""Ends that send nothing again because the other one waits for a processor.

Such an end is silent for as long as others have its processor. Whoever waits for it expects an answer as quick as the
last ones: he probes after two round trips (a tail loss probe, RFC 8985 section 7), which are a fraction of a
millisecond here, and repeats after 200 ms. A test that says how often something is sent is one of patient ends.
"""

import json
import subprocess
from contextlib import AbstractContextManager
from pathlib import Path

# Settings of a stack.
PATIENT = {"tail_probe_min_ns": 10_000_000_000, "rto_min_ns": 10_000_000_000, "rto_initial_ns": 10_000_000_000}


def make_patient(place: AbstractContextManager[object], network: str = "198.18.0.0/24") -> None:
    """The same for the kernel of a namespace. place: within it is that namespace."""
    with place:
        Path("/proc/sys/net/ipv4/tcp_early_retrans").write_text("0")
        shown = subprocess.run(["ip", "-json", "route", "show", network], check=True, capture_output=True)
        [route] = json.loads(shown.stdout)
        words = ["ip", "route", "change", network, "dev", route["dev"], "src", route["prefsrc"], "rto_min", "10s"]
        subprocess.run(words, check=True)
