# SPDX-License-Identifier: MIT
"""veth pairs, TAP devices and addresses, in namespaces of the test's own."""

from collections.abc import Callable
from pathlib import Path

import pytest

from ustack.lab import links, namespace
from ustack.lab.links import End
from ustack.lab.namespace import InUseError, LabError

pytestmark = pytest.mark.root


def test_a_veth_pair_spans_two_namespaces_and_may_have_one_name(make_namespace: Callable[[], str]) -> None:
    ours, peer = End(make_namespace(), "x0"), End(make_namespace(), "x0")
    links.make_veth(ours, peer, mark="m", mtu=1400)
    for end in (ours, peer):
        found = links.find(end)
        assert found is not None
        assert (found["kind"], found["alias"], found["mtu"], found["up"]) == ("veth", "m", 1400, False)


def test_one_end_may_be_in_the_callers_namespace(
    make_namespace: Callable[[], str], unique: Callable[[str], str]
) -> None:
    ours, peer = End(make_namespace(), "x0"), End(None, unique("v"))
    links.make_veth(ours, peer, mark="m")
    assert links.find(peer) is not None
    assert links.remove(peer, mark="m")
    assert links.find(ours) is None


def test_both_ends_may_be_in_one_namespace(make_namespace: Callable[[], str]) -> None:
    name = make_namespace()
    links.make_veth(End(name, "x0"), End(name, "x1"), mark="m")
    assert links.find(End(name, "x0")) is not None
    assert links.find(End(name, "x1")) is not None


@pytest.mark.parametrize("taken", [0, 1])
def test_a_taken_name_leaves_nothing_and_touches_nothing(make_namespace: Callable[[], str], taken: int) -> None:
    ends = [End(make_namespace(), "x0"), End(make_namespace(), "x1")]
    other = End(make_namespace(), "y0")
    links.make_veth(ends[taken], other, mark="theirs")
    with pytest.raises(InUseError, match="exists"):
        links.make_veth(ends[0], ends[1], mark="m")
    assert links.find(ends[1 - taken]) is None
    standing = links.find(ends[taken])
    assert standing is not None
    assert standing["alias"] == "theirs"


def test_the_kernels_own_refusal_leaves_nothing(make_namespace: Callable[[], str]) -> None:
    """The same name twice in one namespace passes the first look and fails at the second move."""
    name = make_namespace()
    with pytest.raises(InUseError, match="taken"):
        links.make_veth(End(name, "x0"), End(name, "x0"), mark="m")
    assert links.find(End(name, "x0")) is None


def test_remove_leaves_an_interface_of_another_mark(make_namespace: Callable[[], str]) -> None:
    ours, peer = End(make_namespace(), "x0"), End(make_namespace(), "x1")
    links.make_veth(ours, peer, mark="theirs")
    assert not links.remove(ours, mark="m")
    assert links.find(ours) is not None


def test_remove_in_a_namespace_that_is_gone(unique: Callable[[str], str]) -> None:
    assert not links.remove(End(unique("ns"), "x0"), mark="m")


@pytest.mark.parametrize("ifname", ["", "x" * 16, "a/b", " a"])
def test_bad_interface_names_are_refused(make_namespace: Callable[[], str], ifname: str) -> None:
    name = make_namespace()
    with pytest.raises(LabError, match="bad interface name"):
        links.make_veth(End(name, ifname), End(name, "x1"), mark="m")


@pytest.mark.tap
@pytest.mark.skipif(not Path("/dev/net/tun").exists(), reason="no /dev/net/tun here")
def test_a_tap_device_is_made_where_it_is_wanted(make_namespace: Callable[[], str]) -> None:
    end = End(make_namespace(), "tap0")
    links.make_tap(end, mark="m", mtu=1400)
    found = links.find(end)
    assert found is not None
    assert (found["kind"], found["alias"], found["mtu"]) == ("tun", "m", 1400)
    assert links.remove(end, mark="m")


@pytest.mark.tap
@pytest.mark.skipif(not Path("/dev/net/tun").exists(), reason="no /dev/net/tun here")
def test_what_the_kernel_refuses_to_make_is_said_in_words(make_namespace: Callable[[], str]) -> None:
    end = End(make_namespace(), "tap0")
    with pytest.raises(LabError, match=r"^cannot make tap0 in [^ ]*: Invalid argument$"):
        links.make_tap(end, mark="m", mtu=65535)
    assert links.find(end) is None


def test_configure_sets_the_address_and_keeps_ipv6_quiet(make_namespace: Callable[[], str]) -> None:
    ours, peer = End(make_namespace(), "x0"), End(make_namespace(), "x0")
    links.make_veth(ours, peer, mark="m")
    links.configure(ours, ipv6=False)
    links.configure(peer, address="198.18.4.1/24", ipv6=False)
    assert links.addresses(ours.namespace) == []
    assert [(name, str(interface)) for name, interface in links.addresses(peer.namespace)] == [("x0", "198.18.4.1/24")]


def test_addresses_in_use_are_found(make_namespace: Callable[[], str]) -> None:
    ours, peer = End(make_namespace(), "x0"), End(make_namespace(), "x0")
    links.make_veth(ours, peer, mark="m")
    links.configure(peer, address="198.18.4.1/24", ipv6=False)
    with pytest.raises(InUseError, match=r"198\.18\.4\.1 is in use: x0"):
        links.check_address_free(peer.namespace, "198.18.4.1/24")
    with pytest.raises(InUseError, match="network"):
        links.check_address_free(peer.namespace, "198.18.4.7/25", overlap=True)
    links.check_address_free(peer.namespace, "198.18.4.7/25")
    links.check_address_free(ours.namespace, "198.18.4.1/24", overlap=True)


def test_the_thread_is_at_home_after_all_of_it(make_namespace: Callable[[], str]) -> None:
    home = namespace.identity()
    ours, peer = End(make_namespace(), "x0"), End(make_namespace(), "x0")
    links.make_veth(ours, peer, mark="m")
    links.configure(ours, ipv6=False)
    with links.netlink(peer.namespace):
        assert namespace.identity() == home
    assert namespace.identity() == home
