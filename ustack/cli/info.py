# SPDX-License-Identifier: MIT
"""`ustack info`: what this build is, what this machine can do, what a connection costs; and every setting of a stack.

Above: cli. Below: obs, lab (the ingress drop's probe), tcp (the records' sizes), engine.settings and
blocking.options (the tables).
"""

import json
import platform
from typing import Any

import click

from ustack import __version__
from ustack.cli.amounts import amount
from ustack.cli.serve_options import kernel_strategies
from ustack.cli.tables import print_rows
from ustack.engine.profiles import PROFILES
from ustack.lab import ingress
from ustack.obs import info as compiled


def collect() -> dict[str, Any]:
    """Everything `ustack info` prints. Opens and closes descriptors; leaves nothing."""
    from ustack.tcp.cc.registry import names
    from ustack.tcp.records.life import record_sizes

    found = {**compiled.link_capabilities(), **ingress.probe()}
    return {
        "version": __version__,
        "build": compiled.build_mode(),
        "compiler": compiled.compiler(),
        "kernel": compiled.kernel(),
        "python": platform.python_version(),
        "links": {name: not reason for name, reason in found.items()},
        "unavailable": {name: reason for name, reason in found.items() if reason},
        "congestion_controls": list(names()),
        "profiles": list(PROFILES),
        "kernel_strategies": list(kernel_strategies()),
        **record_sizes(),
    }


def _print_settings(as_json: bool) -> None:
    from ustack.engine.settings import settings

    rows = list(settings().values())
    others = {profile: table for profile, table in PROFILES.items() if table}
    if as_json:
        named = [{**row._asdict(), "profiles": _of_profiles(row.name)} for row in rows]
        click.echo(json.dumps(named, indent=2))
        return
    cells = [
        (
            row.name,
            amount(row.name, row.default),
            *(amount(row.name, table[row.name]) if row.name in table else "" for table in others.values()),
            amount(row.name, row.low),
            amount(row.name, row.high),
            row.text,
        )
        for row in rows
    ]
    print_rows(("setting", "default", *others, "from", "to", "what it is"), cells)


def _of_profiles(name: str) -> dict[str, int]:
    """What the profiles say of one setting, those that say something."""
    return {profile: table[name] for profile, table in PROFILES.items() if name in table}


def _print_options(as_json: bool) -> None:
    from ustack.blocking.options import options

    rows = list(options().values())
    if as_json:
        click.echo(json.dumps([row._asdict() for row in rows], indent=2))
        return
    cells = [(row.name, row.on, row.unit, _range_of(row.low, row.high), row.text) for row in rows]
    print_rows(("option", "of", "unit", "range", "what it is"), cells)


def _range_of(low: int, high: int) -> str:
    return f"{low} to {high}" if high else ""


@click.command()
@click.option("--options", "only_options", is_flag=True, help="Every option of connections and listeners.")
@click.option(
    "--settings",
    "only_settings",
    is_flag=True,
    help="Every setting of a stack: default, a profile's, bounds, meaning.",
)
@click.option("--json", "as_json", is_flag=True, help="With --settings or --options: JSON, with plain numbers.")
def info(only_options: bool, only_settings: bool, as_json: bool) -> None:
    """Print version, build, link capabilities and record sizes as one JSON object.

    `flow_bytes` is a connection's share of the flow table and of the timers at their worst; an idle one takes
    `tcb_bytes`, `birth_bytes` and those. `unavailable` says why a
    capability in `links` is false: without root most of them are.
    """
    if only_options:
        _print_options(as_json)
    elif only_settings:
        _print_settings(as_json)
    else:
        click.echo(json.dumps(collect(), indent=2))
