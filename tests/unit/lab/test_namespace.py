# SPDX-License-Identifier: MIT
"""Named namespaces and `inside`, on the real kernel."""

import os
import socket
import subprocess
import threading
from collections.abc import Callable

import pytest

from ustack.lab import links, namespace
from ustack.lab.links import End
from ustack.lab.namespace import InUseError, LabError

pytestmark = pytest.mark.root


def test_a_created_namespace_is_named_marked_and_has_a_loopback_that_is_up(unique: Callable[[str], str]) -> None:
    name = unique("ns")
    namespace.create(name, mark="somebody")
    try:
        loopback = links.find(End(name, "lo"))
        assert loopback is not None
        assert loopback["alias"] == "somebody"
        assert loopback["up"]
        assert name in namespace.names()
        assert namespace.identity(name) != namespace.identity()
    finally:
        namespace.remove(name)
    assert not namespace.exists(name)


def test_the_ip_command_sees_it(make_namespace: Callable[[], str]) -> None:
    name = make_namespace()
    listed = subprocess.run(["ip", "netns", "list"], check=True, capture_output=True, text=True).stdout
    assert name in listed.split()


def test_create_refuses_a_name_that_is_taken(make_namespace: Callable[[], str]) -> None:
    name = make_namespace()
    before = namespace.identity(name)
    with pytest.raises(InUseError, match="exists"):
        namespace.create(name)
    assert namespace.identity(name) == before


def test_remove_of_nothing_does_nothing(unique: Callable[[str], str]) -> None:
    namespace.remove(unique("ns"))


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "-x", "x" * 65, "a b", "a\n"])
def test_bad_names_are_refused(name: str) -> None:
    with pytest.raises(LabError, match="bad name"):
        namespace.create(name)


def test_inside_moves_this_thread_and_brings_it_back(make_namespace: Callable[[], str]) -> None:
    name, home = make_namespace(), namespace.identity()
    with namespace.inside(name):
        assert namespace.identity() == namespace.identity(name)
        assert [ifname for _, ifname in socket.if_nameindex()] == ["lo"]
    assert namespace.identity() == home


def test_inside_moves_no_other_thread(make_namespace: Callable[[], str]) -> None:
    name, home = make_namespace(), namespace.identity()
    seen = []
    entered, looked = threading.Event(), threading.Event()

    def look() -> None:
        entered.wait()
        seen.append(namespace.identity())
        looked.set()

    thread = threading.Thread(target=look)
    thread.start()
    with namespace.inside(name):
        entered.set()
        looked.wait()
    thread.join()
    assert seen == [home]


def test_inside_comes_back_after_an_exception(make_namespace: Callable[[], str]) -> None:
    name, home = make_namespace(), namespace.identity()
    with pytest.raises(ZeroDivisionError), namespace.inside(name):
        _ = 1 / 0
    assert namespace.identity() == home


def test_inside_nests(make_namespace: Callable[[], str]) -> None:
    outer, inner, home = make_namespace(), make_namespace(), namespace.identity()
    with namespace.inside(outer):
        with namespace.inside(inner):
            assert namespace.identity() == namespace.identity(inner)
        assert namespace.identity() == namespace.identity(outer)
    assert namespace.identity() == home


def test_inside_of_nothing_says_so_and_leaks_no_descriptor(unique: Callable[[str], str]) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(LabError, match="no namespace"), namespace.inside(unique("ns")):
        pass
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_file_that_is_no_namespace_is_refused(unique: Callable[[str], str]) -> None:
    path = namespace.RUN_DIR / unique("ns")
    path.touch()
    try:
        assert not namespace.is_mounted(path.name)
        with pytest.raises(LabError, match="not a network namespace"), namespace.inside(path.name):
            pass
    finally:
        path.unlink()


def test_find_by_identity_finds_a_namespace_that_a_process_lives_in() -> None:
    path = namespace.find_by_identity(namespace.identity())
    assert path is not None
    with namespace.inside(path):
        pass


def test_find_by_identity_of_a_namespace_that_is_gone() -> None:
    assert namespace.find_by_identity((0, 1)) is None
