# SPDX-License-Identifier: MIT
"""The process that libFuzzer drives: started by __main__ with the runtimes loaded and the fuzz build first on the path.

Arguments: the target's name, then libFuzzer's own.
"""

from __future__ import annotations

import ctypes
import os
import shlex
import sys

from ustack.tools.fuzz.target import drive, watch_python
from ustack.tools.fuzz.targets import TARGETS


def _address(name: str) -> int:
    function = getattr(ctypes.CDLL(None), name)
    return ctypes.cast(function, ctypes.c_void_p).value or 0


def main() -> None:
    """Hand the process over; libFuzzer ends it."""
    described = TARGETS[sys.argv[1]]
    target = described.make()
    if described.python:
        watch_python(_address("__sanitizer_cov_8bit_counters_init"), _address("__sanitizer_cov_pcs_init"))
    # libFuzzer starts itself again to make a corpus smaller, by its first argument, as a shell's words.
    itself = shlex.join([sys.executable, "-m", "ustack.tools.fuzz.inside", sys.argv[1]])
    arguments = [os.fsencode(argument) for argument in (itself, *sys.argv[2:])]
    sys.exit(drive(target, _address("LLVMFuzzerRunDriver"), arguments))


if __name__ == "__main__":
    main()
