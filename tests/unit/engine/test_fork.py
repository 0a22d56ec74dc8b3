# SPDX-License-Identifier: MIT
"""fork() with a stack open: the connections stay the parent's, and the child's copies send nothing."""

import errno
import json
import socket
import subprocess
import sys
import textwrap
from collections.abc import Callable

import pytest

from tests.children import in_a_child
from ustack import PacketMmapLink, Stack
from ustack.lab import namespace
from ustack.lab.making import Made
from ustack.testing.testbed import PEER_ADDRESS, STACK_ADDRESS

# In the child: what its links have counted as sent, before and after; printed by the parent, when the child has ended.
FORKED = """
    import gc, json, os, sys
    from ustack.testing.pair import Pair

    pair = Pair(msl_ns=0)
    opener, accepter = pair.connect()
    opener.send(b"before")
    answer, word = os.pipe()
    child = os.fork()
    if child == 0:
        links = (pair.network.a, pair.network.b)
        before = [link.counters()["tx_frames"] for link in links]
        def use():
            {use}
        try:
            use()
            raised = None
        except Exception as error:
            raised = type(error).__name__
        gc.collect()
        after = [link.counters()["tx_frames"] for link in links]
        told = [after[i] - before[i] for i in range(2)], raised
        os.write(word, json.dumps(told).encode())
        sys.exit(0)
    os.close(word)
    told = json.loads(os.read(answer, 1000))
    status = os.waitpid(child, 0)[1]
    opener.send(b" and after")
    pair.advance(1_000_000_000)
    received = accepter.receive().decode()
    accepter.send(b"answer")
    pair.advance(1_000_000_000)
    received += " " + opener.receive().decode()
    opener.close()
    accepter.close()
    pair.advance(1_000_000_000)
    pair.close()
    print(json.dumps([*told, status, received]))
"""


@pytest.mark.parametrize(
    "use",
    [
        "opener.send(b'twice'); pair.advance(10_000_000_000)",
        "accepter.abort(); pair.pump()",
        "opener.close(); accepter.close(); pair.pump()",
        "pair.a.connect('198.18.0.9', 80, wait=False); pair.pump()",
        "pair.a.close(); pair.b.close()",
        "pair.a.close(linger=None)",
        "global opener, accepter; del opener, accepter; pair.pump()",
        "global opener, accepter, pair; del opener, accepter, pair",
        "pass",
    ],
)
def test_a_child_sends_nothing_of_its_parents_connections(use: str) -> None:
    script = textwrap.dedent(FORKED).replace("{use}", use)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    sent, raised, status, received = json.loads(done.stdout)
    assert (sent, raised, status) == ([0, 0], None, 0)
    assert received == "before and after answer"


@pytest.mark.root
def test_a_childs_copy_of_a_real_link_is_silent_and_waits_for_nothing(
    make_lab: Callable[..., Made], make_stack: Callable[..., Stack]
) -> None:
    """Both have the same packet socket: a reset that the child sent would be the parent's."""
    lab = make_lab()
    with lab.inside():
        link = PacketMmapLink(lab.ifname)
    with namespace.inside(lab.peer_netns):
        peer = socket.socket()
    with link, peer:
        stack = make_stack(link, STACK_ADDRESS + "/24")
        listener = stack.listen(80)
        peer.setblocking(False)
        assert peer.connect_ex((STACK_ADDRESS, 80)) == errno.EINPROGRESS
        connection = listener.accept(timeout=60)
        peer.settimeout(60)

        def use() -> None:
            connection.send(b"twice", timeout=0)
            connection.abort()
            stack.close()
            link.close()

        assert in_a_child(lambda: listener.accept(timeout=60)) == errno.EBADF
        assert in_a_child(lambda: stack.run(60_000_000_000)) == errno.EBADF
        assert in_a_child(use) is None
        connection.send(b"once", timeout=60)
        connection.close()
        stack.close(linger=60)
        assert peer.makefile("rb").read() == b"once"


@pytest.mark.root
def test_a_link_that_no_stack_has_used_may_be_used_in_a_child(make_lab: Callable[..., Made]) -> None:
    """Opened by a parent with privileges, for a process without."""
    lab = make_lab()
    with lab.inside():
        link = PacketMmapLink(lab.ifname)
    with namespace.inside(lab.peer_netns):
        peer = socket.socket()
    with link, peer:
        peer.bind(("", 8080))
        peer.listen()
        peer.settimeout(60)

        def use() -> str:
            with Stack(link, STACK_ADDRESS + "/24") as stack:
                connection = stack.connect(PEER_ADDRESS, 8080, timeout=60)
                connection.send(b"from the child")
                connection.close()
                stack.close(linger=60)
            return "closed"

        assert in_a_child(use) == "closed"
        with peer.accept()[0] as accepted:
            accepted.settimeout(60)
            assert accepted.makefile("rb").read() == b"from the child"
