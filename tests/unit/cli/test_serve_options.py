# SPDX-License-Identifier: MIT
"""What `serve` checks before it makes anything, and how it ends: without a stack, without privileges."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from ustack.cli import main
from ustack.cli.amounts import setting
from ustack.cli.serve_options import Options, check, check_kernel
from ustack.cli.signals import Interrupted, StopSignals
from ustack.lab import LabError, privilege


@pytest.fixture(autouse=True)
def all_privileges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(privilege, "effective", lambda: set(privilege.CAPABILITIES))


def test_the_url_has_the_port_always() -> None:
    assert Options(Path("/"), address="198.18.0.2/24", port=80).url == "http://198.18.0.2:80/"


def test_the_plan_follows_the_options(tmp_path: Path) -> None:
    plan = check(Options(tmp_path, link="veth", netns="a", peer_netns="b", address="198.18.0.9/24"))
    assert (plan.name, plan.link, plan.netns, plan.peer_netns) == (f"serve-{os.getpid()}", "veth", "a", "b")
    assert (plan.address, plan.peer_address, plan.ifname) == ("198.18.0.9/24", "198.18.0.1/24", None)


def test_dev_names_its_interface(tmp_path: Path) -> None:
    plan = check(Options(tmp_path, link="dev:eth7"))
    assert (plan.link, plan.ifname) == ("dev", "eth7")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"link": "dev:"}, "bad link"),
        ({"link": ":x"}, "bad link"),
        ({"link": "tap:x"}, "bad link"),
        ({"link": "veth:"}, "bad link"),
        ({"peer_address": ""}, "bad peer address ''"),
        ({"linger": float("nan")}, "bad --linger nan"),
        ({"link": "dev:x", "peer_address": "198.18.0.1/24"}, "make no sense"),
        ({"gateway": "198.18.0.2"}, "is not a neighbour"),
        ({"gateway": "fe80::1"}, "bad gateway"),
        ({"cc": "bogus"}, "no congestion control 'bogus'; there are: newreno"),
        ({"cc": ""}, "no congestion control ''"),
        ({"access_log": Path("/no/such/directory/log")}, "no directory for the access log"),
        ({"trace": Path("/no/such/directory/out.qlog")}, "no directory for the trace"),
        ({"trace": Path("out.pcap")}, "--trace: out.pcap: a trace is written to a file that ends in .parquet"),
    ],
)
def test_what_cannot_work_is_refused(tmp_path: Path, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(LabError, match=message):
        check(Options(tmp_path, **fields))


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("rto_min_ns", "not NAME=VALUE of a setting"),
        ("nonsense=1", "not NAME=VALUE of a setting"),
        ("=1", "not NAME=VALUE of a setting"),
        ("ttl=", "bad ttl ''"),
        ("ttl=0", "ttl is from 1 to 255, not 0"),
        ("rto_min_ns=100us", "rto_min_ns is from 1 ms to 1 d, not 100 us"),
    ],
)
def test_settings_are_checked(tmp_path: Path, word: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", str(tmp_path), "--link", "veth", "--set", word]) == 2
    assert message in capsys.readouterr().err


KERNEL = {"link": None, "stack": "kernel:poll"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"stack": "kernel"}, "no stack 'kernel'; there are: ustack, kernel:epoll-lt"),
        ({"stack": "kernel:kqueue"}, "no stack 'kernel:kqueue'"),
        ({"stack": "bsd"}, "no stack 'bsd'"),
        ({"link": "veth"}, "--link makes no sense with --stack kernel:poll"),
        ({"netns": "x"}, "--netns makes no sense"),
        ({"address": "10.0.0.1/24"}, "--address makes no sense .*; its address is --listen"),
        ({"peer_address": "10.0.0.1/24"}, "--peer-address makes no sense"),
        ({"gateway": "10.0.0.1"}, "--gateway makes no sense"),
        ({"capture": Path("-")}, "--capture makes no sense"),
        ({"ring": 64}, "--ring makes no sense"),
        ({"busy_poll": "always"}, "--busy-poll makes no sense"),
        ({"settings": (("ttl", 3),)}, "--set makes no sense"),
        ({"workers": 2}, "--workers is for --stack kernel:prefork or kernel:reuseport"),
        ({"stack": "kernel:prefork", "json_stats": True}, "--json-stats makes no sense"),
        ({"stack": "kernel:reuseport", "json_stats": True}, "--json-stats makes no sense"),
        ({"listen": "localhost"}, "bad --listen 'localhost'"),
        ({"listen": ""}, "bad --listen ''"),
        ({"stack": "kernel:processes", "json_stats": True}, "--json-stats makes no sense"),
        ({"stack": "kernel:threads", "sendfile": True}, "--sendfile makes no sense with --stack kernel:threads"),
        ({"stack": "kernel:threads", "spin": 5}, "--spin makes no sense with --stack kernel:threads"),
        ({"linger": float("nan")}, "bad --linger nan"),
    ],
)
def test_what_the_kernels_sockets_cannot_be_asked_is_refused(
    tmp_path: Path, fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(LabError, match=message):
        check_kernel(Options(tmp_path, **{**KERNEL, **fields}))


def test_listen_is_for_the_kernels_sockets_alone(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="--listen is for --stack kernel:STRATEGY"):
        check(Options(tmp_path, listen="127.0.0.1"))


def test_spin_is_for_the_kernels_sockets_alone(tmp_path: Path) -> None:
    with pytest.raises(
        LabError, match="--spin is for --stack kernel:STRATEGY: how a stack of ours waits is --busy-poll"
    ):
        check(Options(tmp_path, spin=50))


def test_cork_is_for_the_kernels_sockets_alone(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="--cork is for --stack kernel:STRATEGY"):
        check(Options(tmp_path, cork=True))


def test_zerocopy_is_for_the_kernels_sockets_alone(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="--zerocopy is for --stack kernel:STRATEGY"):
        check(Options(tmp_path, zerocopy=True))


def test_sendfile_is_for_the_kernels_sockets_alone(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="--sendfile is for --stack kernel:STRATEGY"):
        check(Options(tmp_path, sendfile=True))


def test_where_the_kernels_sockets_are_found(tmp_path: Path) -> None:
    assert Options(tmp_path, port=8080, **KERNEL).url == "http://127.0.0.1:8080/"
    assert Options(tmp_path, listen="10.0.0.1", **KERNEL).url == "http://10.0.0.1:80/"


def test_without_a_stack_of_the_kernels_a_link_is_needed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", str(tmp_path)]) == 2
    assert "Missing option '--link'" in capsys.readouterr().err


def test_settings_are_numbers_by_name() -> None:
    assert setting("rto_min_ns=1 s") == ("rto_min_ns", 1_000_000_000)
    assert setting("rcv_buffer_bytes=64KiB") == ("rcv_buffer_bytes", 65536)


def test_missing_privileges_are_named_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(privilege, "effective", lambda: {"CAP_NET_ADMIN"})
    with pytest.raises(LabError, match="ustack serve needs root, or CAP_NET_RAW, CAP_SYS_ADMIN"):
        check(Options(tmp_path))
    with pytest.raises(LabError, match="no directory"):
        check(Options(tmp_path / "missing"))


def test_a_signal_before_there_is_a_stack_raises_once() -> None:
    with StopSignals() as signals:
        with pytest.raises(Interrupted):
            os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.received


def test_a_signal_afterwards_stops_the_stack() -> None:
    stopped = []
    with StopSignals() as signals:
        signals.stop = lambda: stopped.append(True)
        os.kill(os.getpid(), signal.SIGINT)
        assert signals.received
    assert stopped == [True]


def test_a_second_signal_insists() -> None:
    with StopSignals() as signals:
        signals.stop = lambda: None
        os.kill(os.getpid(), signal.SIGTERM)
        assert not signals.insisted
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.insisted


def test_handlers_are_given_back() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)]
    with StopSignals():
        pass
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)] == before


@pytest.mark.parametrize(
    ("arguments", "status"), [(["--help"], 0), (["--version"], 0), ([], 2), (["nonsense"], 2), (["serve", "--help"], 0)]
)
def test_exit_statuses(arguments: list[str], status: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == status
    captured = capsys.readouterr()
    if status == 2 and arguments:
        assert captured.err.count("\n") == 1
