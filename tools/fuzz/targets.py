# SPDX-License-Identifier: MIT
"""The targets by name, and their corpora.

A corpus is one file, tests/data/fuzz/NAME.zip: inputs that together reach what fuzzing has reached so far, named by
their contents. `unzip -l` lists it, libFuzzer gets it as a folder, tests/fuzz/test_corpus.py replays it.
"""

from __future__ import annotations

import hashlib
import importlib
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ustack.tools.fuzz.target import Target

_EPOCH = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Described:
    """A target: where its class is, how long an input may be, whether Python's lines count as coverage."""

    module: str
    name: str
    max_bytes: int
    python: bool = False

    def make(self) -> Target:
        """A target, ready for inputs."""
        made = getattr(importlib.import_module(self.module), self.name)()
        assert isinstance(made, Target)
        return made


TARGETS = {
    "frames": Described("ustack.tools.fuzz.frames", "Frames", 4096),
    "segments": Described("ustack.tools.fuzz.segments", "Segments", 2048),
    "options": Described("ustack.tools.fuzz.options", "Options", 512),
    "heads": Described("ustack.tools.fuzz.heads", "Heads", 2048, python=True),
    "scenarios": Described("ustack.tools.fuzz.scenarios", "Scenarios", 4096, python=True),
}


def inputs_of(corpus: Path) -> Iterator[tuple[str, bytes]]:
    """Names and contents, in order."""
    with zipfile.ZipFile(corpus) as packed:
        for name in sorted(packed.namelist()):
            yield name, packed.read(name)


def unpack(corpus: Path, folder: Path) -> None:
    """As files of a folder; one that is there stays."""
    folder.mkdir(parents=True, exist_ok=True)
    if corpus.exists():
        for name, data in inputs_of(corpus):
            (folder / name).write_bytes(data)


def pack(inputs: Iterable[bytes], corpus: Path) -> None:
    """The same inputs give the same file, byte for byte."""
    corpus.parent.mkdir(parents=True, exist_ok=True)
    named = {hashlib.sha256(data).hexdigest()[:16]: data for data in inputs}
    with zipfile.ZipFile(corpus, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as packed:
        for name, data in sorted(named.items()):
            packed.writestr(zipfile.ZipInfo(name, _EPOCH), data, zipfile.ZIP_DEFLATED)
