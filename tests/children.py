# SPDX-License-Identifier: MIT
"""Processes that fork() makes of the tests' own."""

import json
import os
from collections.abc import Callable
from typing import Any


def in_a_child(body: Callable[[], object]) -> Any:
    """What body() returns in a process that fork() makes here, or the errno of its OSError."""
    answer, word = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            try:
                told: Any = body()
            except OSError as error:
                told = error.errno
            os.write(word, json.dumps(told).encode())
        finally:
            os._exit(0)
    os.close(word)
    with os.fdopen(answer) as stream:
        text = stream.read()
    assert os.waitpid(child, 0)[1] == 0
    return json.loads(text)
