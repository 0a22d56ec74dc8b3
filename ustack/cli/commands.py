# SPDX-License-Identifier: MIT
"""The commands of `ustack`: serve, load, demo, lab, wire, trace, info, bench, sim. Above everything; only the command
line's start imports it.

Whatever is wrong with the arguments or the machine ends as one line on standard error and exit status 2.
"""

import os
import sys
from collections.abc import Sequence

import click

from ustack import __version__
from ustack.cli.bench import bench as bench_command
from ustack.cli.demo import demo as demo_command
from ustack.cli.info import info as info_command
from ustack.cli.lab import lab as lab_command
from ustack.cli.load import load as load_command
from ustack.cli.serve import serve as serve_command
from ustack.cli.sim import sim as sim_command
from ustack.cli.trace import trace as trace_command
from ustack.cli.wire import wire as wire_command
from ustack.lab import LabError

INTERRUPTED = 130  # what a shell reports for a program that SIGINT has ended


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="ustack")
def cli() -> None:
    """Serve HTTP from a TCP stack in user space, over raw packet rings."""


cli.add_command(serve_command)
cli.add_command(load_command)
cli.add_command(demo_command)
cli.add_command(lab_command)
cli.add_command(wire_command)
cli.add_command(trace_command)
cli.add_command(info_command)
cli.add_command(bench_command)
cli.add_command(sim_command)


def run_command(command: click.Command, arguments: Sequence[str] | None = None) -> int:
    """Run one click command; return its exit status, having turned every refusal into one line."""
    try:
        result = command.main(arguments, prog_name="ustack", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return 2
    except click.Abort:
        return INTERRUPTED
    except (click.ClickException, LabError, OSError, MemoryError) as error:
        return _refuse(_one_line(error))
    return result if isinstance(result, int) else 0


def _one_line(error: Exception) -> str:
    if isinstance(error, click.ClickException):
        return error.format_message()
    if isinstance(error, OSError):
        # Too few descriptors, no memory for a process: what any step may meet.
        where = f"{os.fsdecode(error.filename)}: " if error.filename else ""
        return f"{where}{error.strerror or error}"
    return str(error) or "out of memory"


def _refuse(message: str) -> int:
    print("ustack: " + " ".join(message.split()), file=sys.stderr)
    return 2
