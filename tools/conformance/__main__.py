# SPDX-License-Identifier: MIT
"""Write docs/conformance.md. See the package's own words."""

from __future__ import annotations

import argparse
from pathlib import Path

from ustack.tools.conformance.document import document

ROOT = Path(__file__).resolve().parents[2]


def main(arguments: list[str] | None = None) -> None:
    """Write the page where the project is, or where --root says."""
    parser = argparse.ArgumentParser(prog="python -m ustack.tools.conformance", description=__doc__.split("\n")[0])
    parser.add_argument("--root", type=Path, default=ROOT, help="the project's root (default: this tree)")
    options = parser.parse_args(arguments)
    target = options.root / "docs" / "conformance.md"
    target.write_text(document(options.root), encoding="utf-8")
    print(f"written: {target}")


if __name__ == "__main__":
    main()
