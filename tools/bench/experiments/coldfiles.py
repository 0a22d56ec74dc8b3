# SPDX-License-Identifier: MIT
"""Files that are not in the page cache: does a server that waits for the disk let everybody else wait?"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path

from ustack.tools.bench.contestants.base import Contestant
from ustack.tools.bench.experiments.base import Bench, Experiment, Outcome
from ustack.tools.bench.generators import Shape, ask
from ustack.tools.bench.site import write
from ustack.tools.generators import inside
from ustack.tools.servers import WITH_US

FILES = 200
FILE_BYTES = 256 << 10
FOLDER = "cold"
FETCHED_LEAST = 5  # or nobody was there to be waited for
FETCH_MOST_S = 10  # each of them


def make_cold(folder: Path) -> int:
    """New files, written to the disk and dropped from the page cache; returns how many are out of it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    out = 0
    for number in range(FILES):
        write(folder, f"{number}.bin", FILE_BYTES)
    os.sync()
    for number in range(FILES):
        with (folder / f"{number}.bin").open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            out += not is_cached(file.fileno())
    return out


def is_cached(descriptor: int) -> bool:
    """Can its first page be read without waiting for the disk?"""
    try:
        return os.preadv(descriptor, [bytearray(4096)], 0, os.RWF_NOWAIT) > 0
    except OSError:
        return False


def faults_of(lines: list[str]) -> dict[str, int]:
    """What is wrong with these `STATUS BYTES`, a line for each cold file. One may have no answer: curl was ended."""
    right = lines.count(f"200 {FILE_BYTES}")
    silent = sum(line.startswith("000 ") for line in lines)
    counts = {
        "no answer about a cold file": silent if silent > 1 else 0,
        "status or length of a cold file": len(lines) - right - silent,
        f"fewer than {FETCHED_LEAST} cold files were fetched": int(right < FETCHED_LEAST),
    }
    return {text: count for text, count in counts.items() if count}


class ColdFiles(Experiment):
    """The 99th percentile of a hot file, while another client fetches cold ones."""

    name = "coldfiles"
    order = 7
    title = "A hot file's p99 in µs, while another client asks for cold ones"
    asks = (
        "Who blocks on the disk? One connection asks for a file in memory, another for files that are not in the page "
        "cache, one after the other."
    )
    unit = "µs"
    lower_is_better = True
    points = (f"{FILES} files of {FILE_BYTES >> 10} KiB",)
    beside_s = 1.5
    most_rounds = 3

    def unfit(self, contestant: Contestant, point: str) -> str:
        """Who reads no files waits for none."""
        return "" if contestant.reads_files else "reads no files by name"

    def measure(self, bench: Bench, contestant: Contestant, point: str) -> Outcome:
        """New files for each run: no cache of any server's has seen them."""
        folder = bench.site / FOLDER / contestant.plain_name
        try:
            cold = make_cold(folder)
            if cold < FILES // 2:
                return Outcome(None, errors={f"only {cold} of {FILES} files could be dropped from the page cache": 1})
            return self.measure_beside(bench, contestant, folder, cold)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def measure_beside(self, bench: Bench, contestant: Contestant, folder: Path, cold: int) -> Outcome:
        """The hot file, while curl fetches what is in the folder."""
        base = f"{contestant.url}/{FOLDER}/{folder.name}/[0-{FILES - 1}].bin"
        # What it says goes to standard error, which has no buffer that dies with it.
        words = ["curl", "-s", "--max-time", str(FETCH_MOST_S), "-o", os.devnull]
        words += ["-w", "%{stderr}%{http_code} %{size_download}\\n", base]
        command = [*WITH_US, *inside(contestant.client_netns, bench.client_core), *words]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as reader:
            try:
                load, said = ask(bench.generator, contestant, Shape(connections=1), bench.seconds)
            finally:
                reader.terminate()
            lines = reader.communicate()[1].splitlines()
        errors = {**load.errors, **faults_of(lines)}
        details = {"cold": cold, "fetched": lines.count(f"200 {FILE_BYTES}"), "beside": shlex.join(command)}
        return Outcome(load.p99_us, load, said, errors, details)


EXPERIMENTS = [ColdFiles()]
