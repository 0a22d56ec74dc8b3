# SPDX-License-Identifier: MIT
"""The project's own sources, for tests that read them: where they lie, and the name they have when installed."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
TOPS = ("ustack", "server", "tools")
SUFFIXES = (".py", ".pyx", ".pxd", ".pyi")


def sources(*suffixes: str) -> list[Path]:
    """Every file of these suffixes (none: of all that a source has) below TOPS, in the order of their names."""
    found = (path for top in TOPS for path in (ROOT / top).rglob("*") if path.suffix in (suffixes or SUFFIXES))
    return sorted(path for path in found if path.is_file() and "__pycache__" not in path.parts)


def installed_name(path: Path) -> str:
    """server/ and tools/ are ustack/server/ and ustack/tools/ then."""
    name = path.relative_to(ROOT).as_posix()
    return name if name.startswith("ustack/") else f"ustack/{name}"
