# SPDX-License-Identifier: MIT
"""What benchmarks against other servers begin with: the right to run, the choice of names, servers that answer.

It must not: measure anything. Above: bench_quick, bench_attacks. Below: servers, load.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType

import click

from ustack.lab import LabError
from ustack.tools.generators import LoadError, inside, run
from ustack.tools.servers import SERVERS, Server, make_distinct, make_site

# A connection for each request takes a new local port each time, and the port stays in TIME-WAIT for 60 s at the end
# that closed first. The default range (28,232 ports) would last for about a second. So the client may use every port,
# and may take over its own TIME-WAITs that are older than a second, which timestamps make safe (RFC 6191).
CLIENT_SETTINGS = {"net/ipv4/ip_local_port_range": "1024 65535", "net/ipv4/tcp_tw_reuse": "1"}


def choose(value: str, known: list[str], what: str) -> list[str]:
    """Split a comma-separated option and check each name, keeping the order of `known`."""
    wanted = [name.strip() for name in value.split(",") if name.strip()]
    for name in wanted:
        if name not in known:
            raise click.BadParameter(f"{name}: no such {what}; there are {', '.join(known)}")
    if not wanted:
        raise click.BadParameter(f"name at least one {what}")
    return [name for name in known if name in wanted]


def two_cores(program: str) -> tuple[int, int]:
    """The client's core and the servers'. Ends the program with 2 and one line where it cannot run.

    From here on SIGTERM and SIGHUP (unless it is ignored, as by nohup) end it by an exception, so that servers and
    namespaces go as at any other end.
    """
    cores = sorted(os.sched_getaffinity(0))
    if os.geteuid() != 0 or len(cores) < 2:
        click.echo(f"{program}: needs root (network namespaces) and two cores (one for each end)", err=True)
        sys.exit(2)
    end_in_order()
    return cores[0], cores[1]


ENDING = (signal.SIGTERM, signal.SIGHUP)


def end_in_order() -> None:
    """The first of ENDING raises SystemExit in the main thread; those after it do not disturb the tidying up."""
    for number in ENDING:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _terminate)


def _nothing(_number: int, _frame: FrameType | None) -> None:
    """It is ending already."""


def _terminate(number: int, _frame: FrameType | None) -> None:
    for one in ENDING:
        signal.signal(one, _nothing)  # a handler, which programs that are started do not inherit
    raise SystemExit(128 + number)


def prepare_client(netns: str) -> None:
    """Apply CLIENT_SETTINGS in a client's namespace."""
    for name, value in CLIENT_SETTINGS.items():
        run([*inside(netns), "sh", "-c", f"echo {value} > /proc/sys/{name}"], timeout_s=10)


@contextmanager
def started(
    program: str, names: Sequence[str | type[Server]], core: int, *, distinct: bool = False
) -> Iterator[tuple[Path, list[Server]]]:
    """A folder for the run, and the servers (named, or a class), each with a site, a client's namespace, right answers.

    distinct: the site has the many files for which every path is another. Everything is gone at the end. Ends the
    program with 2 and one line when a server does not start.
    """
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ustack-bench-")))
        make_site(work / "site")
        if distinct:
            make_distinct(work / "site")
        kinds = [SERVERS[name] if isinstance(name, str) else name for name in names]
        servers = [kind(work, work / "site", core) for kind in kinds]
        try:
            for server in servers:
                stack.callback(server.stop)
                server.start()
                prepare_client(server.client_netns)
                server.check()
        except (LoadError, LabError) as error:
            click.echo(f"{program}: {error}", err=True)
            sys.exit(2)
        yield work, servers
