# SPDX-License-Identifier: MIT
"""`ustack demo`, which `make run` runs: serve the sample site over a link made for it, fetch a page with the real curl
first, say how to use it.

Above: commands. Below: serve, serve_options.
"""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import click

from ustack.cli.serve import run
from ustack.cli.serve_options import Options
from ustack.lab import LabError, Made

SITE = Path(__file__).parents[1] / "site"
IN_NAMESPACES = "USTACK_IN_NAMESPACES"  # set by vagrant/in-namespaces where it has made some
SLICE_NS = 10_000_000
CURL_TIMEOUT_S = 10


@click.command()
@click.option("--link", type=click.Choice(["veth", "tap"]), default="veth", show_default=True)
@click.option("--address", default="198.18.0.2/24", show_default=True)
@click.option("--peer-address", help="The kernel's address at the other end.  [default: another of the same network]")
@click.option("--port", type=click.IntRange(1, 65535), default=80, show_default=True)
def demo(link: str, address: str, peer_address: str | None, port: int) -> int:
    """Serve the sample site from the userspace stack until Ctrl-C."""
    options = Options(SITE, link=link, address=address, peer_address=peer_address, port=port)
    if shutil.which("curl") is None:
        raise LabError("no curl: install it")

    def check(stack: Any, lab: Made) -> None:
        said = check_with_curl(stack, options.url)
        print(f"curl fetched {options.url}: {said}", flush=True)

    return run(options, on_ready=check, hint=hint(options))


def check_with_curl(stack: Any, url: str) -> str:
    """Fetch `url` by curl while the stack runs here. Returns status and size; raises LabError."""
    command = ["curl", "--silent", "--show-error", "--fail", "--max-time", str(CURL_TIMEOUT_S), "--noproxy", "*"]
    command += ["--output", "/dev/null", "--write-out", "%{http_code}, %{size_download} bytes", url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as curl:
        while curl.poll() is None:
            stack.run(SLICE_NS)
        output, errors = curl.communicate()
    if curl.returncode != 0:
        raise LabError(f"the check with curl failed: {errors.strip()}")
    return output


def hint(options: Options) -> str:
    """What a user can do next."""
    if IN_NAMESPACES in os.environ:
        enter = f"nsenter --preserve-credentials -U -n -t {os.getpid()}"
        lines = [
            (f"{enter} curl {options.url}", "from another terminal: nobody else is in these namespaces"),
            (f"{enter} wrk -t1 -c64 -d5 {options.url}512.bin", "requests per second"),
            ("vagrant/in-namespaces .venv/bin/ustack serve DIR --link veth", "your own files"),
        ]
    else:
        lines = [
            (f"curl {options.url}", "from this machine, or open it in a browser here"),
            (f"wrk -t1 -c64 -d5 {options.url}512.bin", "requests per second"),
            (".venv/bin/ustack lab list", "what was made; Ctrl-C removes it"),
            (".venv/bin/ustack serve DIR --link veth", "your own files"),
        ]
    width = max(len(command) for command, _ in lines)
    return "\n".join(f"    {command:{width}}   {purpose}" for command, purpose in lines)
