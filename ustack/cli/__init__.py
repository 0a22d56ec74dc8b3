# SPDX-License-Identifier: MIT
"""The command line's first steps, before anything that takes time is imported: commands has the rest.

Above: the script `ustack`, __main__. Below: commands.
"""

import os
import resource
import signal
import sys
from collections.abc import Sequence

DESCRIPTORS = 32  # what a server and its keeper have open while they start, and some
STANDARD = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status. arguments: None for the process's own."""
    own_process = arguments is None
    if own_process:
        open_standard_streams()
        allowed = descriptors()
        if allowed < DESCRIPTORS:
            print(f"ustack: {allowed} open files are too few (ulimit -n): {DESCRIPTORS} are needed", file=sys.stderr)
            return 2
    # While modules are imported, and again at the end, Ctrl-C ends the process as it does any program: no traceback.
    interruptible = own_process and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if interruptible:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        from ustack.cli.commands import INTERRUPTED, cli, run_command
    except (ImportError, OSError) as error:
        print(f"ustack: cannot start: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    try:
        if interruptible:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        return run_command(cli, arguments)
    except KeyboardInterrupt:
        return INTERRUPTED
    finally:
        if interruptible:
            signal.signal(signal.SIGINT, signal.SIG_DFL)


def descriptors() -> int:
    """How many files this process may have open, after it has asked for as many as it can have if those are too few."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= DESCRIPTORS or soft == hard:
        return soft if soft != resource.RLIM_INFINITY else DESCRIPTORS
    wanted = hard if hard != resource.RLIM_INFINITY else DESCRIPTORS
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted


def open_standard_streams() -> None:
    """Give a process that was started without standard input, output or error /dev/null in its place.

    Else the next descriptor that is opened, a packet socket perhaps, gets its number, and what is meant for a reader
    goes there.
    """
    for number, (name, mode) in enumerate(STANDARD):
        try:
            os.fstat(number)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)
            if null != number:
                os.dup2(null, number)
                os.close(null)
            os.set_inheritable(number, True)
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, mode, closefd=False))
