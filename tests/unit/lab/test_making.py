# SPDX-License-Identifier: MIT
"""A lab is made whole or not at all, and removed whole."""

import os
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ustack.lab import ingress, links, making, namespace, ownership
from ustack.lab.links import End
from ustack.lab.making import Made, Plan
from ustack.lab.namespace import InUseError, LabError

root = pytest.mark.root


@pytest.fixture(autouse=True)
def state_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(ownership, "STATE_DIR", tmp_path)
    return tmp_path


def interfaces() -> set[str]:
    return {name for _, name in socket.if_nameindex()}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"link": "wire"}, "bad link 'wire'"),
        ({"netns": "a/b"}, "bad name"),
        ({"peer_netns": ""}, "bad name"),
        ({"address": "198.18.0.2"}, "prefix length"),
        ({"address": "198.18.0.2/31"}, "prefix length"),
        ({"address": "198.18.0.0/24"}, "no host may have"),
        ({"address": "198.18.0.255/24"}, "no host may have"),
        ({"address": "nonsense/24"}, "bad address"),
        ({"peer_address": "2001:db8::1/64"}, "bad peer address"),
        ({"peer_address": "198.18.0.2/24"}, "both ends have"),
        ({"peer_address": "198.18.1.1/24"}, "different networks"),
        ({"link": "dev"}, "no interface named"),
        ({"mtu": 500}, "bad MTU"),
    ],
)
def test_a_plan_that_cannot_work_is_refused_at_once(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(LabError, match=message):
        making.check(Plan(**{"name": "x", **fields}))


@pytest.mark.bpf
@root
def test_veth_has_the_peers_address_on_the_peers_end_only(make_lab: Callable[..., Made]) -> None:
    made = make_lab(address="198.18.8.2/24", peer_address="198.18.8.1/24", mtu=1400)
    assert made.drop == ingress.CLSACT
    assert links.addresses(made.netns) == []
    assert [str(interface) for _, interface in links.addresses(made.peer_netns)] == ["198.18.8.1/24"]
    found = links.find(End(made.netns, made.ifname))
    assert found is not None
    assert (found["kind"], found["mtu"], found["up"]) == ("veth", 1400, True)


@pytest.mark.tap
@root
def test_tap_is_the_peers_end(make_lab: Callable[..., Made]) -> None:
    made = make_lab(link="tap")
    assert (made.netns, made.ifname) == (made.peer_netns, made.peer_ifname)
    found = links.find(End(made.netns, made.ifname))
    assert found is not None
    assert found["kind"] == "tun"


@root
def test_a_private_name_is_chosen_and_the_peer_is_here(unique: Callable[[str], str]) -> None:
    before = interfaces()
    name = unique("lab")
    plan = Plan(name, address="198.19.201.2/24", peer_address="198.19.201.1/24")
    made = making.up(plan)
    try:
        assert made.netns == f"ustack-{name}"
        assert made.peer_netns is None
        assert interfaces() - before == {made.peer_ifname}
    finally:
        making.down(name)
    assert interfaces() == before
    assert not namespace.exists(f"ustack-{name}")


@root
def test_a_private_name_that_is_taken_is_left_alone(unique: Callable[[str], str]) -> None:
    name = unique("lab")
    taken = f"ustack-{name}"
    namespace.create(taken)
    try:
        made = making.up(Plan(name, peer_netns=f"{name}-b"))
        assert made.netns == f"{taken}-1"
        making.down(name)
        assert namespace.exists(taken)
    finally:
        namespace.remove(taken)


@root
def test_namespaces_that_existed_stay(make_namespace: Callable[[], str], unique: Callable[[str], str]) -> None:
    ours, peer, name = make_namespace(), make_namespace(), unique("lab")
    making.up(Plan(name, netns=ours, peer_netns=peer))
    making.down(name)
    assert namespace.exists(ours)
    assert namespace.exists(peer)
    assert links.find(End(peer, "ustack0")) is None


@root
def test_two_labs_may_share_a_namespace(make_namespace: Callable[[], str], unique: Callable[[str], str]) -> None:
    shared, one, two = make_namespace(), unique("lab"), unique("lab")
    first = making.up(Plan(one, netns=f"{one}-a", peer_netns=shared))
    second = making.up(
        Plan(two, netns=f"{two}-a", peer_netns=shared, address="198.18.1.2/24", peer_address="198.18.1.1/24")
    )
    assert first.peer_ifname != second.peer_ifname
    assert [made.name for made in making.labs()] == sorted([one, two])
    making.down(one)
    assert links.find(End(shared, second.peer_ifname or "")) is not None
    making.down(two)


@root
def test_an_address_in_use_is_refused_and_nothing_is_left(
    make_lab: Callable[..., Made], unique: Callable[[str], str]
) -> None:
    standing = make_lab()
    name = unique("lab")
    with pytest.raises(InUseError, match=r"address 198\.18\.0\.1 is in use"):
        making.up(Plan(name, peer_netns=standing.peer_netns))
    assert not namespace.exists(f"ustack-{name}")
    assert ownership.load(name) is None


@root
def test_a_name_that_is_up_is_refused(make_lab: Callable[..., Made]) -> None:
    standing = make_lab()
    with pytest.raises(InUseError, match="is up already"):
        making.up(Plan(standing.name))
    assert making.find(standing.name) == standing


@root
@pytest.mark.parametrize("step", ["make_veth", "configure"])
def test_a_failure_half_way_undoes_everything(
    step: str, unique: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(links, step, fail)
    name = unique("lab")
    with pytest.raises(LabError, match="Cannot allocate memory"):
        making.up(Plan(name, netns=f"{name}-a", peer_netns=f"{name}-b"))
    assert not namespace.exists(f"{name}-a")
    assert not namespace.exists(f"{name}-b")
    assert ownership.records() == []


@root
def test_down_of_nothing_says_so() -> None:
    with pytest.raises(LabError, match="no lab nothing"):
        making.down("nothing")


@pytest.mark.bpf
@root
def test_dev_takes_an_interface_and_keeps_the_kernel_from_one_address(
    make_lab: Callable[..., Made], unique: Callable[[str], str]
) -> None:
    standing, name = make_lab(), unique("lab")
    end = End(standing.peer_netns, standing.peer_ifname or "")
    made = making.up(Plan(name, link="dev", netns=end.namespace, ifname=end.ifname, address="198.18.0.9/24"))
    assert made.peer_ifname is None
    assert ingress.has_clsact(end)
    making.down(name)
    assert not ingress.has_clsact(end)
    assert links.find(end) is not None


@pytest.mark.bpf
@root
def test_dev_gives_an_address_to_one_stack(make_lab: Callable[..., Made], unique: Callable[[str], str]) -> None:
    """A second one on the same interface is not heard by the first: nothing on the wire would tell."""
    standing = make_lab()
    end = End(standing.peer_netns, standing.peer_ifname or "")
    plan = Plan(unique("lab"), link="dev", netns=end.namespace, ifname=end.ifname, address="198.18.0.9/24")
    second = Plan(unique("lab"), link="dev", netns=end.namespace, ifname=end.ifname, address="198.18.0.9/25")
    making.up(plan)
    with pytest.raises(InUseError, match=rf"address 198\.18\.0\.9 is in use: lab {plan.name} has it"):
        making.up(second)
    # Seen from a mount namespace with a /run of its own there is no record, and the claim alone says it.
    record = ownership.load(plan.name)
    assert record is not None
    record.path.unlink()
    with pytest.raises(InUseError, match=r"address 198\.18\.0\.9 is in use: another stack"):
        making.up(second)
    record.save()
    assert ingress.has_clsact(end)
    making.down(plan.name)
    making.up(second)
    making.down(second.name)
    assert not ingress.has_clsact(end)


@pytest.mark.bpf
@root
@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("had_qdisc", [False, True])
def test_two_stacks_on_one_interface_keep_their_own_drops(
    make_lab: Callable[..., Made], unique: Callable[[str], str], first: int, had_qdisc: bool
) -> None:
    standing = make_lab()
    end = End(standing.peer_netns, standing.peer_ifname or "")
    if had_qdisc:
        with links.netlink(end.namespace) as ip:
            ip.tc("add", "clsact", ip.link_lookup(ifname=end.ifname)[0])
    plans = [
        Plan(unique("lab"), link="dev", netns=end.namespace, ifname=end.ifname, address=f"198.18.0.{last}/24")
        for last in (9, 10)
    ]
    for plan in plans:
        making.up(plan)
    making.down(plans[first].name)
    assert filters(end) == 1
    making.down(plans[1 - first].name)
    assert filters(end) == 0
    assert ingress.has_clsact(end) == had_qdisc


def filters(end: End) -> int:
    with links.netlink(end.namespace) as ip:
        index = ip.link_lookup(ifname=end.ifname)[0]
        found = ip.get_filters(index=index, parent=ingress.INGRESS_PARENT)
        return sum(1 for one in found if (options := one.get_attr("TCA_OPTIONS")) and options.get_attr("TCA_BPF_NAME"))


@pytest.mark.tap
@root
def test_dev_refuses_what_is_not_ethernet(make_namespace: Callable[[], str], unique: Callable[[str], str]) -> None:
    where = make_namespace()
    subprocess.run(["ip", "-n", where, "tuntap", "add", "t0", "mode", "tun"], check=True)
    for ifname in ("t0", "lo"):
        subprocess.run(["ip", "-n", where, "link", "set", ifname, "up"], check=True)
        with pytest.raises(LabError, match=f"interface {ifname} in {where} is not Ethernet"):
            making.up(Plan(unique("lab"), link="dev", netns=where, ifname=ifname, address="198.18.0.9/24"))


@root
@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"ifname": "nosuch0"}, "no interface nosuch0"),
        ({"netns": "no-such-namespace"}, "no namespace"),
        ({"address": "198.18.0.1/24"}, "is in use"),
    ],
)
def test_dev_refuses(
    make_lab: Callable[..., Made], unique: Callable[[str], str], fields: dict[str, Any], message: str
) -> None:
    standing, name = make_lab(), unique("lab")
    plan = {"netns": standing.peer_netns, "ifname": standing.peer_ifname, "address": "198.18.0.9/24", **fields}
    with pytest.raises(LabError, match=message):
        making.up(Plan(name, link="dev", **plan))
    assert not ingress.has_clsact(End(standing.peer_netns, standing.peer_ifname or ""))


@root
def test_a_dead_owners_lab_is_swept_by_the_next_up(unique: Callable[[str], str]) -> None:
    dead, name = unique("lab"), unique("lab")
    making.up(Plan(dead, netns=f"{dead}-a", peer_netns=f"{dead}-b"))
    record = ownership.load(dead)
    assert record is not None
    record.owners = [(os.getpid(), 0)]
    record.save()
    assert making.labs() == []
    making.up(Plan(name, netns=f"{name}-a", peer_netns=f"{name}-b"))
    assert not namespace.exists(f"{dead}-a")
    making.down(name)


@root
def test_a_ping_goes_nowhere_because_the_kernel_is_kept_off(make_lab: Callable[..., Made]) -> None:
    """Nobody answers for the stack's address until a stack does: the neighbour stays unresolved."""
    made = make_lab()
    command = ["ip", "netns", "exec", str(made.peer_netns), "ip", "neigh", "show", "nud", "reachable"]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == ""


@root
def test_dev_refuses_an_address_that_another_station_has(
    make_lab: Callable[..., Made], unique: Callable[[str], str]
) -> None:
    standing = make_lab()
    plan = Plan(unique("lab"), link="dev", netns=standing.netns, ifname=standing.ifname, address="198.18.0.1/24")
    with pytest.raises(InUseError, match=r"address 198\.18\.0\.1 is in use: .* answers for it"):
        making.up(plan)
