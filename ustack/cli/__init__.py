# SPDX-License-Identifier: MIT
"""The command line `ustack`: serve, lab, info. Above everything; nothing imports it.

Whatever is wrong with the arguments or the machine ends as one line on standard error and exit status 2.
"""

import sys
from collections.abc import Sequence

import click

from ustack import __version__
from ustack.cli.info import info as info_command
from ustack.cli.lab import lab as lab_command
from ustack.cli.serve import serve as serve_command
from ustack.netns import LabError


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="ustack")
def cli() -> None:
    """Serve HTTP from a TCP stack in user space, over raw packet rings."""


cli.add_command(serve_command)
cli.add_command(lab_command)
cli.add_command(info_command)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    return run_command(cli, arguments)


def run_command(command: click.Command, arguments: Sequence[str] | None = None) -> int:
    """Run one click command; return its exit status, having turned every refusal into one line."""
    try:
        result = command.main(arguments, prog_name="ustack", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return 2
    except click.ClickException as error:
        return _refuse(error.format_message())
    except click.Abort:
        return _refuse("interrupted")
    except LabError as error:
        return _refuse(str(error))
    return result if isinstance(result, int) else 0


def _refuse(message: str) -> int:
    print("ustack: " + " ".join(message.split()), file=sys.stderr)
    return 2
