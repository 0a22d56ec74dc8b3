# SPDX-License-Identifier: MIT
"""A directory to serve, and how `ustack serve` is started in the tests of this folder."""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.net.serve.running import BODY, COMMAND, Server, Start


@pytest.fixture
def site(tmp_path: Path) -> Path:
    directory = tmp_path / "site"
    directory.mkdir()
    (directory / "512.bin").write_bytes(BODY)
    (directory / "index.html").write_text("<p>hello</p>")
    return directory


@pytest.fixture
def serve(site: Path, unique: Callable[[str], str]) -> Start:
    @contextmanager
    def start(*arguments: str, link: str = "veth", directory: Path = site) -> Iterator[Server]:
        name = unique("sv")
        ours, peer = f"{name}-a", f"{name}-b"
        command = [*COMMAND, "serve", str(directory), "--link", link, "--netns", ours, "--peer-netns", peer, *arguments]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        server = Server(process, ours, peer)
        try:
            ready = server.stdout.readline()
            assert ready.startswith("ready http://"), process.stderr.read() if process.stderr else ""
            server.url = ready.split()[1]
            yield server
        finally:
            if process.poll() is None:
                process.terminate()
            process.communicate(timeout=60)

    return start
