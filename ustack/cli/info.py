# SPDX-License-Identifier: MIT
"""`ustack info`: what this build is, what this machine can do, and what a connection costs. One JSON object.

Above: cli. Below: obs, netns (the ingress drop's probe), tcp (the records' sizes).
"""

import json
import platform
from typing import Any

import click

from ustack import __version__
from ustack.lab import ingress
from ustack.obs import info as compiled


def collect() -> dict[str, Any]:
    """Everything `ustack info` prints. Opens and closes descriptors; leaves nothing."""
    from ustack.tcp.records.tcb import record_sizes

    found = {**compiled.link_capabilities(), **ingress.probe()}
    return {
        "version": __version__,
        "build": compiled.build_mode(),
        "compiler": compiled.compiler(),
        "kernel": compiled.kernel(),
        "python": platform.python_version(),
        "links": {name: not reason for name, reason in found.items()},
        "unavailable": {name: reason for name, reason in found.items() if reason},
        **record_sizes(),
    }


@click.command()
def info() -> None:
    """Print version, build, link capabilities and record sizes as one JSON object.

    `flow_bytes` is a connection's share of the flow table and of the timers at their worst. `unavailable` says why a
    capability in `links` is false: without root most of them are.
    """
    click.echo(json.dumps(collect(), indent=2))
