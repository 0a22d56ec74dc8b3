# SPDX-License-Identifier: MIT
"""Congestion controls that a scenario names: one of the stack's, or a class in Python, by its file or its module:
`steady.py:Steady`, `package.module:Class`.

A class is loaded by running its file, as an import does: whoever runs a scenario of somebody else's runs the code that
it names. In a worker process it is loaded there again, from the same file.

Above: reading, building. Below: tcp.cc.scripted, tcp.cc.registry.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from ustack.sim import values
from ustack.tcp.cc.registry import names
from ustack.tcp.cc.scripted import CongestionControl, register


def located(spec: Any, folder: Path) -> str:
    """What a scenario names, as load() takes it anywhere on this machine: files of `folder` by their whole path.

    Raises ValueError: no control, and no class that can be one.
    """
    text: str = values.text(spec)
    place, colon, _ = text.rpartition(":")
    if not colon:
        if text not in names():
            near = values.nearest(text, names())
            known = f"{', '.join(names())}, or a class such as 'steady.py:Steady'"
            raise ValueError(f"no control is called {values.shown(text)}{near}: {known}")
        return text
    if place.endswith(".py"):
        text = f"{(folder / place).resolve()}:{text[len(place) + 1 :]}"
    load(text)
    return text


def load(spec: str) -> str:
    """Make a control known in this process; the name by which connections ask for it. Raises ValueError."""
    if ":" not in spec:
        return spec
    place, _, name = spec.rpartition(":")
    module = _file(place) if place.endswith(".py") else _module(place)
    found = getattr(module, name, None)
    if found is None:
        classes = [key for key, value in vars(module).items() if _is_control(value)]
        raise ValueError(f"{place} has no class {values.shown(name)}{values.nearest(name, classes)}")
    if not _is_control(found):
        raise ValueError(f"{name} of {place} is no subclass of CongestionControl (ustack.tcp.cc.scripted)")
    if not found.name:
        found.name = name.lower()
    register(found)
    return str(found.name)


def _is_control(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, CongestionControl) and value is not CongestionControl


def _module(place: str) -> ModuleType:
    try:
        return importlib.import_module(place)
    except (Exception, SystemExit) as error:
        raise ValueError(f"cannot load {values.shown(place)}: {_words(error)}") from None


def _file(place: str) -> ModuleType:
    try:
        status = os.stat(place)
    except (OSError, ValueError) as error:
        words = error.strerror if isinstance(error, OSError) else error
        raise ValueError(f"cannot load {values.shown(place)}: {words}") from None
    return _loaded(place, status.st_mtime_ns, status.st_size)


@functools.lru_cache(maxsize=64)
def _loaded(place: str, mtime_ns: int, size: int) -> ModuleType:
    """A file that has not changed is run once."""
    name = f"ustack_control_{Path(place).stem}_{mtime_ns}_{size}"
    spec = importlib.util.spec_from_file_location(name, place)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where its own classes look for their module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise ValueError(f"cannot load {values.shown(place)}: {_words(error)}") from None
    return module


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no reason given'}"
