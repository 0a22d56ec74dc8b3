# SPDX-License-Identifier: MIT
"""benchmark: a signal ends a bench in order, once."""

import os
import signal
from collections.abc import Iterator

import pytest

from ustack.tools import benchmark


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in benchmark.ENDING}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", benchmark.ENDING)
def test_a_second_signal_does_not_disturb_the_tidying_up(number: signal.Signals) -> None:
    benchmark.end_in_order()
    with pytest.raises(SystemExit) as ended:
        os.kill(os.getpid(), number)
    assert ended.value.code == 128 + number
    for one in benchmark.ENDING:
        os.kill(os.getpid(), one)
        assert signal.getsignal(one) != signal.SIG_IGN  # what is started now would have it so, too


def test_what_nohup_ignores_stays_ignored() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    benchmark.end_in_order()
    os.kill(os.getpid(), signal.SIGHUP)
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
