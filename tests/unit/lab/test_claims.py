# SPDX-License-Identifier: MIT
"""One stack has an address on an interface; the kernel gives it back whatever becomes of the stack."""

import subprocess
import sys
from collections.abc import Callable

import pytest

from ustack.lab import claims, namespace
from ustack.lab.links import End
from ustack.lab.namespace import InUseError, LabError

pytestmark = pytest.mark.root

HOLD = """
import sys
from ustack.lab.claims import claim
from ustack.lab.links import End
claim(End(sys.argv[1], "lo"), "198.18.7.2")
print("held", flush=True)
sys.stdin.read()
"""


def release(end: End, address: str) -> None:
    claims.release(tuple(namespace.identity(end.namespace)), end.ifname, address)


def test_a_second_claim_is_refused_until_the_first_is_released(make_namespace: Callable[[], str]) -> None:
    end = End(make_namespace(), "lo")
    claims.claim(end, "198.18.7.2")
    with pytest.raises(InUseError, match=r"address 198\.18\.7\.2 is in use: another stack has it on lo"):
        claims.claim(end, "198.18.7.2")
    claims.claim(end, "198.18.7.3")
    elsewhere = End(make_namespace(), "lo")
    claims.claim(elsewhere, "198.18.7.2")
    release(end, "198.18.7.2")
    claims.claim(end, "198.18.7.2")
    release(elsewhere, "198.18.7.2")
    for address in ("198.18.7.2", "198.18.7.3", "198.18.7.4"):
        release(end, address)


def test_a_killed_holder_holds_nothing(make_namespace: Callable[[], str]) -> None:
    end = End(make_namespace(), "lo")
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(end.namespace)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(InUseError):
            claims.claim(end, "198.18.7.2")
        holder.kill()
    claims.claim(end, "198.18.7.2")
    release(end, "198.18.7.2")


def test_an_interface_that_is_not_there_cannot_be_claimed(make_namespace: Callable[[], str]) -> None:
    with pytest.raises(LabError, match="no interface x9"):
        claims.claim(End(make_namespace(), "x9"), "198.18.7.2")
