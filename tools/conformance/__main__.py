# SPDX-License-Identifier: MIT
"""Write docs/conformance.md. See the package's own words."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ustack.testing.states import SIMULATED
from ustack.tools.conformance import answers
from ustack.tools.conformance.document import document
from ustack.tools.conformance.kernelbed import Kernel
from ustack.tools.conformance.questions import QUESTIONS, ask, policy

ROOT = Path(__file__).resolve().parents[2]


def ask_both(root: Path) -> Path:
    """Put all questions to both stacks, and keep the answers."""
    both = {}
    for one in QUESTIONS:
        both[one.name] = (ask(SIMULATED, one), ask(Kernel(), one))
    return answers.write(root, both)


def ask_policy(root: Path) -> Path:
    """The questions of policy, to both of our profiles and to the kernel."""
    subjects = (SIMULATED, policy.Profiled(), Kernel(policy.SYSCTLS))
    said = {one.name: [ask(subject, one) for subject in subjects] for one in policy.QUESTIONS}
    return answers.write(root, said, answers.POLICY)


def main(arguments: list[str] | None = None) -> None:
    """Write the page where the project is, or where --root says."""
    parser = argparse.ArgumentParser(prog="python -m ustack.tools.conformance", description=__doc__.split("\n")[0])
    parser.add_argument("--root", type=Path, default=ROOT, help="the project's root (default: this tree)")
    parser.add_argument("--kernel", action="store_true", help="ask the kernel of this machine before (needs root)")
    options = parser.parse_args(arguments)
    if options.kernel:
        try:
            for asks in (ask_both, ask_policy):
                print(f"written: {asks(options.root)}")
        except PermissionError as error:
            sys.exit(f"a namespace with a TAP device in it: {error.strerror} (root is needed)")
    target = options.root / "docs" / "conformance.md"
    target.write_text(document(options.root), encoding="utf-8")
    print(f"written: {target}")


if __name__ == "__main__":
    main()
