# SPDX-License-Identifier: MIT
"""Whom `ustack serve` serves as, and with what privileges."""

import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.net.serve.running import BODY, COMMAND, Server, Start, refused
from ustack.lab import links, namespace
from ustack.lab.links import End

pytestmark = pytest.mark.root


# ---------------------------------------------------------------- whom it serves as


def status_of(pid: int) -> list[dict[str, str]]:
    """/proc/PID/status of each thread."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        lines = (task / "status").read_text().splitlines()
        found.append({name: value.strip() for name, _, value in (line.partition(":") for line in lines)})
    return found


@pytest.mark.users
def test_no_thread_keeps_a_capability_or_a_way_to_one(serve: Start) -> None:
    with serve("--capture", "/dev/null") as server:
        server.curl(server.url)
        for status in status_of(server.process.pid):
            for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
                assert int(status[name], 16) == 0, (status["Name"], name)
            assert status["NoNewPrivs"] == "1"
            assert status["Uid"].split() == ["65534"] * 4
            assert set(status["Gid"].split()) == {"65534"}
            assert status["Groups"] == ""


@pytest.mark.users
def test_it_serves_as_the_owner_of_the_directory(serve: Start, site: Path) -> None:
    os.chown(site, 4711, 4712)
    site.chmod(0o700)
    with serve() as server:
        (status,) = status_of(server.process.pid)
        assert (status["Uid"].split()[0], status["Gid"].split()[0]) == ("4711", "4712")
        assert server.curl(server.url + "512.bin").stdout == BODY


@pytest.mark.users
@pytest.mark.parametrize(
    ("user", "uid", "gid"),
    [("root", "0", "0"), ("4711", "4711", "4711"), ("4711:13", "4711", "13"), ("daemon:root", "1", "0")],
)
def test_the_user_is_chosen(serve: Start, user: str, uid: str, gid: str) -> None:
    with serve("--user", user) as server:
        (status,) = status_of(server.process.pid)
        assert (set(status["Uid"].split()), set(status["Gid"].split())) == ({uid}, {gid})
        assert int(status["CapEff"], 16) == 0
        assert server.curl(server.url + "512.bin").stdout == BODY


@pytest.mark.users
def test_what_the_user_may_not_read_is_forbidden(serve: Start, site: Path) -> None:
    """As with any server that has given up root: a file of mode 0000, another's file, and below another's directory."""
    (site / "none.txt").write_text("x")
    (site / "none.txt").chmod(0)
    (site / "roots.txt").write_text("x")
    (site / "roots.txt").chmod(0o600)
    (site / "private").mkdir(mode=0o700)
    (site / "private" / "inside.txt").write_text("x")
    with serve() as server:
        for path in ("none.txt", "roots.txt", "private/inside.txt"):
            answer = server.curl(server.url + path, "-o", "/dev/null", "-w", "%{http_code}").stdout
            assert (path, answer) == (path, b"403")


@pytest.mark.users
def test_a_directory_that_the_user_may_not_enter_is_refused(site: Path, unique: Callable[[str], str]) -> None:
    site.chmod(0o700)
    name = unique("sv")
    said = refused(str(site), "--link", "veth", "--netns", f"{name}-a", "--peer-netns", f"{name}-b")
    assert f"nobody may not enter {site} (mode 0700, owner 0)" in said
    assert "--user" in said
    assert not namespace.exists(f"{name}-a")


def test_below_a_private_home_files_are_served_and_a_release_is_switched(serve: Start, tmp_path: Path) -> None:
    """The path cannot be walked by who serves; what is behind it is known by its descriptor, and the keeper follows."""
    home = tmp_path / "home"
    for release in ("one", "two"):
        (home / release).mkdir(parents=True)
        (home / release / "index.html").write_text(release)
    (home / "current").symlink_to("one")
    log = home / "log"
    home.chmod(0o700)
    with serve("--access-log", str(log), directory=home / "current") as server:
        assert server.curl(server.url).stdout == b"one"
        (home / "next").symlink_to("two")
        (home / "next").replace(home / "current")
        log.rename(home / "log.1")
        server.process.send_signal(signal.SIGUSR1)
        while not log.exists():
            assert server.process.poll() is None
            os.sched_yield()
        while server.curl(server.url).stdout != b"two":
            assert server.process.poll() is None
        assert server.end() == 0
    assert '"GET / HTTP/1.1" 200 3' in (home / "log.1").read_text()
    assert '"GET / HTTP/1.1" 200 3' in log.read_text()


# ---------------------------------------------------------------- less than root


def nothing_but(*capabilities: str) -> list[str]:
    """The beginning of a command that runs as an ordinary user with these capabilities, and can get no others."""
    names = ",".join(["-all", *(f"+{name}" for name in capabilities)])
    user = ["setpriv", "--reuid", "4711", "--regid", "4711", "--clear-groups", "--no-new-privs"]
    return [*user, f"--bounding-set={names}", f"--inh-caps={names}", f"--ambient-caps={names}"]


@contextmanager
def device(
    make_namespace: Callable[[], str], as_others_see_it: list[str], capabilities: tuple[str, ...], *arguments: str
) -> Iterator[tuple[Server, subprocess.Popen[str]]]:
    """`serve --link dev:x0` where x0 is, with these capabilities alone."""
    ours, peer = End(make_namespace(), "x0"), End(make_namespace(), "x1")
    links.make_veth(ours, peer, mark="theirs")
    links.configure(ours, ipv6=False)
    links.configure(peer, address="198.18.0.1/24", ipv6=False)
    site = Path(__file__).parents[3] / "ustack" / "site"
    command = [*COMMAND, "serve", str(site), "--link", "dev:x0", *arguments]
    command = [*as_others_see_it, *nothing_but(*capabilities), *command]
    with namespace.inside(ours.namespace):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    server = Server(process, str(ours.namespace), str(peer.namespace))
    try:
        ready = server.stdout.readline()
        assert ready.startswith("ready http://"), process.communicate(timeout=60)[1]
        server.url = ready.split()[1]
        yield server, process
    finally:
        if process.poll() is None:
            process.terminate()
        process.communicate(timeout=60)


def resets_from(wire: socket.socket, address: str) -> int:
    """TCP RSTs from this address among the frames that are there."""
    found = 0
    while True:
        try:
            frame = wire.recv(65536)
        except BlockingIOError:
            return found
        if frame[12:14] == b"\x08\x00" and frame[23] == 6 and frame[26:30] == socket.inet_aton(address):
            found += bool(frame[14 + (frame[14] & 15) * 4 + 13] & 4)


def test_with_cap_net_raw_alone_it_serves_and_the_kernel_is_silent(
    make_namespace: Callable[[], str], as_others_see_it: list[str]
) -> None:
    """Without a filter at ingress: the address is none of the kernel's, which drops what it sees, and sends no RST."""
    with device(make_namespace, as_others_see_it, ("net_raw",)) as (server, process):
        with namespace.inside(server.peer):
            wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.htons(3))
        with wire:
            wire.bind(("x1", 3))
            for _ in range(3):
                assert len(server.curl(server.url + "16k.bin").stdout) == 16384
            assert resets_from(wire, "198.18.0.2") == 0
        (status,) = status_of(process.pid)
        assert (status["Uid"].split()[0], int(status["CapEff"], 16), int(status["CapPrm"], 16)) == ("4711", 0, 0)
        assert server.end() == 0
        assert process.stderr is not None
        assert process.stderr.read() == (
            "ustack: no CAP_NET_ADMIN to keep the kernel off x0: it sees what is for 198.18.0.2 too, and drops it "
            "without an answer, because the address is not its own\n"
        )


def test_without_a_filter_a_kernel_that_forwards_is_named(
    make_namespace: Callable[[], str], as_others_see_it: list[str]
) -> None:
    forwarding = 'test 1 = $(sysctl -n -w net.ipv4.conf.all.forwarding=1) && exec "$@"'
    command = ["sh", "-c", forwarding, "sh", *as_others_see_it]
    with device(make_namespace, command, ("net_raw",)) as (server, process):
        assert server.end() == 0
        assert process.stderr is not None
        said = process.stderr.read()
        assert "net.ipv4.conf.x0.forwarding=1" in said
        assert said.count("\n") == 1


def test_with_cap_net_admin_the_kernel_is_kept_off_without_cap_sys_admin(
    make_namespace: Callable[[], str], as_others_see_it: list[str]
) -> None:
    with device(make_namespace, as_others_see_it, ("net_raw", "net_admin")) as (server, process):
        assert len(server.curl(server.url + "16k.bin").stdout) == 16384
        assert server.end() == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""


def in_a_user_namespace(*options: str) -> list[str]:
    """The beginning of a command that runs as root of namespaces that an ordinary user made."""
    return ["setpriv", "--reuid", "4711", "--regid", "4711", "--clear-groups", "unshare", *options]


@pytest.mark.parametrize("options", [["-Urnm"], ["-Urn"]])
def test_root_of_a_user_namespace_serves_or_is_refused_in_one_line(
    as_others_see_it: list[str], options: list[str]
) -> None:
    """What an ordinary user has in a rootless container. Without a mount namespace no namespace can have a name."""
    probe = [*as_others_see_it, *in_a_user_namespace("-Urn"), "ip", "link", "set", "lo", "up"]
    if subprocess.run(probe, capture_output=True, check=False).returncode != 0:
        pytest.skip("this system lets no ordinary user be root of a user namespace")
    site = Path(__file__).parents[3] / "ustack" / "site"
    words = [*as_others_see_it, *in_a_user_namespace(*options), *COMMAND, "serve", str(site), "--link", "veth"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        ready = process.stdout.readline()
        if ready:
            client = ["nsenter", "-t", str(process.pid), "-U", "-n", "curl", "-sS", "--max-time", "30"]
            body = subprocess.run([*client, ready.split()[1] + "512.bin"], capture_output=True, check=True).stdout
            assert len(body) == 512
            (status,) = status_of(process.pid)
            assert int(status["CapEff"], 16) == 0
            process.terminate()
        _, errors = process.communicate(timeout=60)
    if "m" in options[0]:
        assert (ready, process.returncode, errors) == ("ready http://198.18.0.2:80/\n", 0, "")
    else:
        assert (process.returncode, errors.count("\n")) == (2, 1), errors
        assert errors.startswith("ustack: ")


@pytest.mark.parametrize(
    "setting",
    ["mount -t tmpfs -o ro none /run", "mount -t tmpfs none /run; mkdir /run/netns; echo > /run/ustack"],
    ids=["read-only", "a-file"],
)
@pytest.mark.parametrize("command", [["serve", "SITE", "--link", "veth"], ["lab", "up", "x"], ["lab", "list"]])
def test_a_run_that_cannot_be_written_is_at_most_one_line(site: Path, setting: str, command: list[str]) -> None:
    words = [*COMMAND, *(str(site) if word == "SITE" else word for word in command)]
    script = f'mount --make-rprivate /; {setting}; exec "$@"'
    with subprocess.Popen(
        ["unshare", "--net", "--mount", "sh", "-c", script, "sh", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        if "serve" in command and process.stdout.readline().startswith("ready"):
            process.terminate()
        _, errors = process.communicate(timeout=60)
    assert process.returncode in (0, 2)
    assert errors.count("\n") == (1 if process.returncode else 0), errors
    assert "Traceback" not in errors
