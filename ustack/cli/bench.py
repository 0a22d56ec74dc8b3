# SPDX-License-Identifier: MIT
"""`ustack bench`: what tools/bench does, as a command. It is imported when it is asked for: others need none of it.

Above: cli. Below: tools.bench.
"""

from typing import Any

import click


class Bench(click.Command):
    """Passes every word on."""

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> click.Context:
        """The context of the command proper."""
        from ustack.tools.bench.command import bench as command

        return command.make_context(info_name, args, parent, **extra)


bench = Bench("bench", short_help="Compare stacks and servers on this machine.")
