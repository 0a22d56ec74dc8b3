# SPDX-License-Identifier: MIT
"""What `ustack serve` refuses, in one line, and what it does not mind."""

import json
import socket
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.net.serve.running import BODY, COMMAND, Start, refused
from ustack.lab import namespace

pytestmark = pytest.mark.root


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Missing argument 'DIRECTORY'"),
        (["SITE"], "Missing option '--link'"),
        (["/no/such/directory", "--link", "veth"], "no directory /no/such/directory"),
        (["SITE/512.bin", "--link", "veth"], "is not a directory"),
        (["SITE", "--link", "wire"], "bad link 'wire'"),
        (["SITE", "--link", "dev"], "bad link 'dev'"),
        (["SITE", "--link", "veth:x"], "bad link 'veth:x'"),
        (["SITE", "--link", "dev:no-such0"], "no interface no-such0"),
        (["SITE", "--link", "dev:lo", "--peer-netns", "x"], "make no sense"),
        (["SITE", "--link", "tap", "--ring", "100"], "--ring makes no sense with tap"),
        (["SITE", "--link", "veth", "--port", "0"], "not in the range"),
        (["SITE", "--link", "veth", "--port", "65536"], "not in the range"),
        (["SITE", "--link", "veth", "--address", "198.18.0.2"], "prefix length"),
        (["SITE", "--link", "veth", "--address", "::1/64"], "bad address"),
        (["SITE", "--link", "veth", "--peer-address", "198.18.1.1/24"], "different networks"),
        (["SITE", "--link", "veth", "--gateway", "10.0.0.1"], "is not a neighbour"),
        (["SITE", "--link", "veth", "--gateway", "x"], "bad gateway"),
        (["SITE", "--link", "veth", "--netns", "a/b"], "bad name"),
        (["SITE", "--link", "veth", "--busy-poll", "often"], "'often' is not one of"),
        (["SITE", "--link", "veth", "--capture", "/no/such/x.pcapng"], "no directory for the capture"),
        (["SITE", "--link", "veth", "--no-such-option"], "No such option"),
        (["", "--link", "veth"], "'DIRECTORY': it is empty (an unset variable?)"),
        (["SITE", "--link", "veth", "--access-log", ""], "it is empty"),
        (["SITE", "--link", "veth", "--capture", ""], "it is empty"),
        (["SITE", "--link", "veth", "--netns", "/proc/self/ns/mnt"], "/proc/self/ns/mnt is not a network namespace"),
        (["SITE", "--link", "veth", "--netns", "/no/such/ns"], "no namespace /no/such/ns"),
        (["SITE", "--link", "veth", "--address", "::1/64"], "IPv6 is not supported yet"),
        (["SITE", "--link", "veth", "--address", "127.0.0.1/8"], "loopback"),
        (["SITE", "--link", "dev:an-interface-with-a-long-name"], "bad interface name 'an-interface-with-a-long-name'"),
        (["SITE", "--link", "veth", "--user", "no-such-user"], "--user no-such-user: there is no such user"),
        (["SITE", "--link", "veth", "--user", "nobody:x y"], "there is no such user or group"),
        (["SITE", "--link", "veth", "--user", "4294967295"], "no uid 4294967295"),
        (["SITE", "--link", "veth", "--capture", "-", "--json-stats"], "both want standard output"),
    ],
)
def test_wrong_arguments_are_refused_in_one_line(site: Path, arguments: list[str], message: str) -> None:
    assert message in refused(*(argument.replace("SITE", str(site)) for argument in arguments))


def test_an_address_in_use_is_refused(serve: Start, site: Path) -> None:
    with serve() as server:
        message = refused(str(site), "--link", "veth", "--peer-netns", server.peer)
        assert "address 198.18.0.1 is in use" in message
        assert server.curl(server.url + "512.bin").stdout == BODY


@pytest.mark.parametrize("where", ["capture", "access-log"])
def test_a_file_that_cannot_be_written_leaves_nothing(site: Path, unique: Callable[[str], str], where: str) -> None:
    name = unique("sv")
    names = ["--netns", f"{name}-a", "--peer-netns", f"{name}-b"]
    said = refused(str(site), "--link", "veth", *names, f"--{where}", str(site))
    assert "cannot serve: " in said
    assert said.endswith(f"{site}: Is a directory\n")
    assert not namespace.exists(f"{name}-a")
    assert not namespace.exists(f"{name}-b")


def test_without_privileges_one_line_says_what_is_needed(as_others_see_it: list[str]) -> None:
    user = [*as_others_see_it, "setpriv", "--reuid", "65534", "--clear-groups"]
    command = [*user, *COMMAND, "serve", "/usr", "--link", "veth"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert "ustack serve needs root" in result.stderr
    assert result.stderr.count("\n") == 1


def test_without_cap_net_raw_alone(site: Path) -> None:
    command = ["setpriv", "--bounding-set", "-net_raw", "--inh-caps", "-net_raw", *COMMAND, "serve", str(site)]
    result = subprocess.run([*command, "--link", "veth"], capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stderr == "ustack: ustack serve needs root, or CAP_NET_RAW: run it with sudo\n"


def test_a_reader_of_the_figures_that_goes_away_does_not_end_it(serve: Start) -> None:
    with serve("--json-stats") as server:
        server.stdout.readline()
        server.stdout.close()
        for _ in range(3):
            assert server.curl(server.url + "512.bin").stdout == BODY
        server.process.stdout = None
        assert server.end() == 0


def test_an_idle_server_sleeps(serve: Start) -> None:
    """Less than 1 % of a core, by the server's own figure over whole seconds; the first may still hold the start."""
    with serve("--json-stats") as server:
        figures = [json.loads(server.stdout.readline())["cpu"] for _ in range(4)]
        assert min(figures[1:]) < 0.01


def test_info_says_what_it_must() -> None:
    result = subprocess.run([*COMMAND, "info"], capture_output=True, text=True, check=True)
    figures = json.loads(result.stdout)
    assert {"version", "build", "compiler", "kernel", "links"} <= figures.keys()
    assert figures["tcb_bytes"] + figures["birth_bytes"] + figures["flow_bytes"] <= 256
    assert figures["time_wait_bytes"] > 0
    assert figures["syn_received_bytes"] > 0
    assert figures["links"]["packet_vnet_hdr"]


def test_a_thousand_connections_while_the_figures_go_out(serve: Start) -> None:
    """The second's housekeeping takes nothing from those who are being served."""
    with serve("--json-stats") as server:
        answers: list[bytes] = []

        def client() -> None:
            with namespace.inside(server.peer):
                for _ in range(250):
                    with socket.create_connection(("198.18.0.2", 80), timeout=30) as one:
                        one.sendall(b"GET /512.bin HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                        answer = b"".join(iter(lambda: one.recv(65536), b""))
                        answers.append(answer[-512:])

        threads = [threading.Thread(target=client) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert answers == [BODY] * 1000
