# SPDX-License-Identifier: MIT
"""`ustack lab`: the namespaces and links alone, for other experiments. They last until `lab down` or the next boot.

Above: cli. Below: lab (the room).
"""

import json
import os
from dataclasses import asdict

import click

from ustack.cli.serve_options import peer_address_for
from ustack.cli.tables import print_rows
from ustack.lab import LabError, Made, Plan, making, namespace, privilege


@click.group()
def lab() -> None:
    """Make, list, enter and remove namespaces joined by a link, with the kernel kept off one end."""


@lab.command()
@click.argument("name", default="lab")
@click.option("--link", type=click.Choice(["veth", "tap"]), default="veth", show_default=True)
@click.option("--netns", metavar="NAME", help="Where our end lives.  [default: ustack-NAME]")
@click.option("--peer-netns", metavar="NAME", help="Where the other end lives.  [default: here]")
@click.option("--address", default="198.18.0.2/24", show_default=True, help="The stack's; nobody has it until it runs.")
@click.option("--peer-address", help="The kernel's, at the other end.  [default: another of the same network]")
@click.option("--mtu", default=1500, show_default=True)
def up(
    name: str, link: str, netns: str | None, peer_netns: str | None, address: str, peer_address: str | None, mtu: int
) -> None:
    """Make the lab NAME and print what was made as one JSON object."""
    peer_address = peer_address_for(address) if peer_address is None else peer_address
    plan = Plan(name, link, netns, peer_netns, address=address, peer_address=peer_address, mtu=mtu)
    click.echo(json.dumps(asdict(_up(plan))))


@lab.command()
@click.argument("name", default="lab")
def down(name: str) -> None:
    """Remove the lab NAME, and only what was made for it."""
    privilege.require("ustack lab down")
    making.down(name)


@lab.command("list")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def list_labs(as_json: bool) -> None:
    """List the labs that are up, those of running servers among them."""
    labs = making.labs()
    if as_json:
        for one in labs:
            click.echo(json.dumps(asdict(one)))
    else:
        print_rows(("name", "link", "our end", "other end", "kernel kept off by"), [_cells(one) for one in labs])


@lab.command("exec", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("--peer", is_flag=True, help="At the peer's end, where the kernel's stack answers.")
@click.argument("name")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def execute(peer: bool, name: str, command: tuple[str, ...]) -> None:
    """Run COMMAND in the namespace of the lab NAME's end: ours or, with --peer, the other. A -- may stand before it."""
    if command[0] == "--":
        command = command[1:]
    if not command:
        raise click.UsageError("Missing argument 'COMMAND...'.")
    privilege.require("ustack lab exec", ["CAP_SYS_ADMIN"])
    found = making.find(name)
    target = found.peer_netns if peer else found.netns
    if target is not None:
        namespace.enter(target)
    try:
        os.execvp(command[0], command)
    except OSError as error:
        raise LabError(f"cannot run {command[0]}: {error.strerror}") from None


def _up(plan: Plan) -> Made:
    privilege.require("ustack lab up")
    return making.up(plan, persistent=True)


def _cells(one: Made) -> list[str]:
    peer = f"{one.peer_ifname or '-'} {one.peer_netns or '(here)'} {one.peer_address or '-'}"
    return [one.name, one.link, f"{one.ifname} {one.netns or '(here)'} {one.address}", peer, one.drop or "-"]
