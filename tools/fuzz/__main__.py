# SPDX-License-Identifier: MIT
"""Coverage-guided fuzzing with libFuzzer, under AddressSanitizer and UndefinedBehaviorSanitizer.

    make fuzz ARGS="segments --seconds 600"
    python -m ustack.tools.fuzz frames --input build/fuzz/findings/frames-crash-...      # a finding again

The modules are built by clang (USTACK_BUILD=fuzz) and the targets run in a Python of their own, into which the
sanitizers' runtime and libFuzzer are loaded beforehand: Python itself is the system's, and not looked at. A run starts
from the corpus in tests/data/fuzz, works in build/fuzz/corpus, and leaves findings in build/fuzz/findings. --save makes
the smallest corpus that reaches the same and writes it back.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from ustack.tools.fuzz.targets import TARGETS, pack, unpack

CLANG = os.environ.get("USTACK_CLANG", "clang-16")
BUILD = Path("build/fuzz").absolute()
CORPORA = Path("tests/data/fuzz").absolute()
SANITIZERS = {
    # libFuzzer comes first: the runtime has empty functions of the same names, for who has no libFuzzer.
    "ASAN_OPTIONS": "verify_asan_link_order=0:detect_leaks=0:abort_on_error=1:allocator_may_return_null=1",
    "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
    "PYTHONMALLOC": "malloc",
    "PYTHONHASHSEED": "0",
}
_PROGRESS = re.compile(r"^#(\d+)\s+[A-Za-z]+\s.*cov: (\d+) ft: (\d+) corp: (\d+)", re.MULTILINE)


class NotReadyError(click.ClickException):
    """Something that fuzzing needs is not there."""


@dataclass
class Run:
    """What one run of a target has come to."""

    target: str
    seconds: float
    executions: int
    edges: int
    features: int
    inputs: int
    findings: list[Path]
    status: int

    @property
    def failed(self) -> bool:
        """There is a finding, or the run itself did not work."""
        return bool(self.findings) or self.status != 0


def library() -> Path:
    """Where the fuzz build is."""
    found = sorted(BUILD.glob("lib.*"))
    if not found:
        raise NotReadyError("no fuzz build: make fuzz (or USTACK_BUILD=fuzz python setup.py build)")
    return found[0]


def runtimes() -> list[Path]:
    """The sanitizers' runtime of the compiler that built the modules, and libFuzzer as a library."""
    if shutil.which(CLANG) is None:
        raise NotReadyError(f"{CLANG} is not installed: vagrant/install-packages fuzz (or USTACK_CLANG names another)")
    parts = []
    for name in ("asan-{}.so", "fuzzer_no_main-{}.a"):
        asked = [CLANG, f"-print-file-name=libclang_rt.{name.format(platform.machine())}"]
        part = Path(subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip())
        if not part.is_absolute():
            raise NotReadyError(f"{part} of {CLANG} is not installed: vagrant/install-packages fuzz")
        parts.append(part)
    fuzzer = BUILD / "libfuzzer.so"
    if not fuzzer.exists() or fuzzer.stat().st_mtime < parts[1].stat().st_mtime:
        whole = ["-Wl,--whole-archive", str(parts[1]), "-Wl,--no-whole-archive"]
        subprocess.run([CLANG, "-shared", "-o", str(fuzzer), *whole, "-lstdc++", "-lm"], check=True)
    return [fuzzer, parts[0]]


def start(target: str, arguments: list[str], log: Path) -> int:
    """Run libFuzzer in a process of its own; its exit status. What it says is in `log`."""
    where = library()
    environment = {
        **os.environ,
        **SANITIZERS,
        "PYTHONPATH": str(where),
        "LD_PRELOAD": " ".join(map(str, runtimes())),
    }
    command = [sys.executable, "-m", "ustack.tools.fuzz.inside", target, *arguments]
    with log.open("wb") as said:
        return subprocess.run(command, cwd=where, env=environment, stdout=said, stderr=said, check=False).returncode


def fuzz(target: str, seconds: int, seed: int, corpus: Path, more: tuple[str, ...]) -> Run:
    """One target for so long."""
    findings = BUILD / "findings"
    findings.mkdir(parents=True, exist_ok=True)
    before = set(findings.iterdir())
    log = BUILD / f"{target}.log"
    unpack(CORPORA / f"{target}.zip", corpus)
    dictionary = CORPORA / f"{target}.dict"
    arguments = [
        f"-max_total_time={seconds}", f"-seed={seed}", f"-max_len={TARGETS[target].max_bytes}", "-timeout=25",
        "-print_final_stats=1", f"-artifact_prefix={findings}/{target}-", "-rss_limit_mb=3000", "-reload=0",
        "-detect_leaks=0", *([f"-dict={dictionary}"] if dictionary.exists() else []), *more, str(corpus),
    ]  # fmt: skip
    began = time.monotonic()
    status = start(target, arguments, log)
    took = time.monotonic() - began
    said = log.read_text(errors="replace")
    lines = _PROGRESS.findall(said)
    executions, edges, features, inputs = map(int, lines[-1]) if lines else (0, 0, 0, 0)
    return Run(target, took, executions, edges, features, inputs, sorted(set(findings.iterdir()) - before), status)


def save(target: str, corpus: Path) -> int:
    """Write the smallest corpus that reaches the same back; how many inputs it has."""
    smallest = BUILD / "smallest" / target
    shutil.rmtree(smallest, ignore_errors=True)
    smallest.mkdir(parents=True)
    log = BUILD / f"{target}-merge.log"
    # By edges, not by how often each is run: ten times fewer inputs.
    how = ["-set_cover_merge=1", "-use_counters=0", f"-max_len={TARGETS[target].max_bytes}", "-timeout=25"]
    if start(target, [*how, str(smallest), str(corpus)], log) != 0:
        raise click.ClickException(f"{target}: no smaller corpus: see {log}")
    pack((file.read_bytes() for file in smallest.iterdir()), CORPORA / f"{target}.zip")
    return len(list(smallest.iterdir()))


@click.command(help="Fuzz TARGET (or all of them, one after the other) with libFuzzer.")
@click.argument("target", type=click.Choice([*TARGETS, "all"]))
@click.option("--seconds", default=60, show_default=True, type=click.IntRange(1), help="For each target.")
@click.option("--seed", default=1, show_default=True, type=click.IntRange(1), help="Of libFuzzer's choices.")
@click.option("--corpus", type=click.Path(path_type=Path), help="Folder to work in; default: build/fuzz/corpus/TARGET.")
@click.option("--input", "inputs", multiple=True, type=click.Path(path_type=Path, exists=True), help="Run this alone.")
@click.option("--save", "saves", is_flag=True, help="Write the smallest corpus back to tests/data/fuzz.")
@click.argument("more", nargs=-1)
def main(
    *, target: str, seconds: int, seed: int, corpus: Path | None, inputs: tuple[Path, ...], saves: bool,
    more: tuple[str, ...],
) -> None:  # fmt: skip
    """Run and print."""
    if inputs:
        if target == "all":
            raise click.UsageError("an input is one target's")
        log = BUILD / f"{target}-input.log"
        status = start(target, [str(path.absolute()) for path in inputs], log)
        print(log.read_text(errors="replace"))
        sys.exit(status)
    runs = []
    for name in TARGETS if target == "all" else [target]:
        folder = (corpus or BUILD / "corpus" / name).absolute()
        run = fuzz(name, seconds, seed, folder, more)
        runs.append(run)
        if run.failed:
            print((BUILD / f"{name}.log").read_text(errors="replace")[-6000:])
        elif saves:
            print(f"{name}: {save(name, folder)} inputs kept")
    report(runs)
    sys.exit(any(run.failed for run in runs))


def report(runs: list[Run]) -> None:
    """A line for each."""
    table = Table(title="libFuzzer, AddressSanitizer, UndefinedBehaviorSanitizer")
    for column in ("target", "executions", "per second", "edges", "features", "inputs", "seconds", "findings"):
        table.add_column(column, justify="left" if column == "target" else "right")
    for run in runs:
        per_second = f"{run.executions / run.seconds:,.0f}"
        table.add_row(run.target, f"{run.executions:,}", per_second, f"{run.edges:,}", f"{run.features:,}",
                      f"{run.inputs:,}", f"{run.seconds:.0f}", str(len(run.findings) or "none"))  # fmt: skip
    Console(width=110).print(table)
    for run in runs:
        for path in run.findings:
            print(f"{run.target}: {path}")
        if run.status and not run.findings:
            print(f"{run.target}: libFuzzer ended with {run.status}: see {BUILD / (run.target + '.log')}")


if __name__ == "__main__":
    main()
