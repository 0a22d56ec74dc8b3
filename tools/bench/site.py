# SPDX-License-Identifier: MIT
"""The files that every contestant serves: the same bytes for all, which do not compress.

Below: tools.servers, which writes the 100,000 files.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

# Name, bytes. What an experiment asks for beyond these it writes itself.
FILES = {
    "/512.bin": 512,
    "/16k.bin": 16 << 10,
    "/64k.bin": 64 << 10,
    "/1m.bin": 1 << 20,
    "/100m.bin": 100_000_000,
}
BLOCK_BYTES = 1 << 20


def write(site: Path, name: str, size: int) -> str:
    """One file of this name and size; returns its SHA-256. The same name always has the same bytes."""
    block = hashlib.shake_128(name.encode()).digest(min(size, BLOCK_BYTES))
    digest = hashlib.sha256()
    path = site / name.lstrip("/")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as out:
        for start in range(0, size, max(1, len(block))):
            part = block[: size - start]
            digest.update(part)
            out.write(part)
    return digest.hexdigest()


def make(site: Path) -> dict[str, str]:
    """All of FILES below a new folder; returns their hashes by name."""
    site.mkdir()
    return {name: write(site, name, size) for name, size in FILES.items()}
