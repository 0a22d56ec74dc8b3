# SPDX-License-Identifier: MIT
"""Without root: `make run` and tests in namespaces of the caller's own (vagrant/in-namespaces), or one clear line."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.net.serve.running import namespaces_of

pytestmark = [pytest.mark.root, pytest.mark.timeout(120)]

ROOT = Path(__file__).parents[2]
IN_NAMESPACES = str(ROOT / "vagrant" / "in-namespaces")
ORDINARY = ["setpriv", "--reuid", "4711", "--regid", "4711", "--clear-groups"]


@pytest.fixture
def ordinary(as_others_see_it: list[str]) -> list[str]:
    """The beginning of a command that runs as an ordinary user. Skips where he can have no namespaces."""
    command = [*as_others_see_it, *ORDINARY, "env", "-u", "XDG_RUNTIME_DIR", "PYTHONDONTWRITEBYTECODE=1"]
    probe = [*as_others_see_it, *ORDINARY, "unshare", "-Urnm", "mount", "-t", "tmpfs", "tmpfs", "/run"]
    if subprocess.run(probe, capture_output=True, check=False).returncode != 0:
        pytest.skip("this system lets no ordinary user be root of a user namespace")
    return command


def recipe(target: str) -> list[str]:
    """The last line of a target's recipe in the Makefile, as words."""
    lines = re.search(rf"^{target}:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert lines is not None
    words = lines[1].splitlines()[-1].strip().removeprefix("@exec ").split()
    known = {"$(IN_NAMESPACES)": IN_NAMESPACES, "$(PYTHON)": sys.executable}
    return [known.get(word, word) for word in words if word != "$(ARGS)"]


def test_make_run_serves_an_ordinary_user_and_leaves_nothing(ordinary: list[str]) -> None:
    """What it prints for a second terminal works as the same user, and nothing is seen of it from outside."""
    with subprocess.Popen(
        [*ordinary, *recipe("run")], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        fetched, ready, user, hint = (process.stdout.readline() for _ in range(4))
        try:
            assert fetched.startswith("curl fetched http://198.18.0.2")
            assert ready.startswith("ready http://198.18.0.2")
            assert "without capabilities" in user
            status = Path(f"/proc/{process.pid}/status").read_text()
            assert re.search(r"^Uid:\s+4711\s", status, re.MULTILINE)
            assert re.search(r"^CapEff:\s+0+$", status, re.MULTILINE)
            words = hint.split("from another terminal")[0].split()
            assert words[:2] == ["nsenter", "--preserve-credentials"]
            client = [*ORDINARY, *words[:-1], "-sS", "--max-time", "30", words[-1]]
            body = subprocess.run(client, capture_output=True, check=True, timeout=60).stdout
            assert body == (ROOT / "ustack" / "site" / "index.html").read_bytes()
            assert namespaces_of(process) == []
        finally:
            process.terminate()
            _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "")
    assert namespaces_of(process) == []


def test_tests_that_need_root_run_for_an_ordinary_user(ordinary: list[str]) -> None:
    """Namespaces with names, marked interfaces, packet rings: all but what takes the machine itself."""
    words = [*recipe("test"), "-q", "-p", "no:cacheprovider", "tests/unit/lab/test_namespace.py"]
    words += ["tests/unit/lab/test_links.py", "tests/unit/link/test_ring_order.py"]
    done = subprocess.run([*ordinary, *words], cwd=ROOT, capture_output=True, text=True, check=False, timeout=110)
    assert done.returncode == 0, done.stdout
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) > 50
    for line in done.stdout.splitlines():
        if line.startswith("SKIPPED"):
            assert re.search(r": (no TAP devices: |no clsact\+bpf: |cannot become another user: )", line), line


def test_root_and_who_has_the_capabilities_run_a_command_as_it_is() -> None:
    for prefix in ([], ["unshare", "--net"]):
        script = 'readlink /proc/self/ns/net; exec "$0" readlink /proc/self/ns/net'
        done = subprocess.run([*prefix, "sh", "-c", script, IN_NAMESPACES], capture_output=True, text=True, check=True)
        outside, inside = done.stdout.split()
        assert outside == inside
    assert subprocess.run([IN_NAMESPACES, "--check", "make run"], check=False).returncode == 0
    status = subprocess.run([IN_NAMESPACES, "sh", "-c", "exit 7"], check=False).returncode
    assert status == 7


# Sets a limit of a new user namespace to nothing, then runs a program in it as an ordinary user.
FORBIDDING = """
import ctypes, os, sys
if ctypes.CDLL(None).unshare(0x10000000):
    sys.exit(3)
print(flush=True)
input()
with open(f"/proc/sys/user/{sys.argv[1]}", "w") as limit:
    limit.write("0")
os.setgroups([])
os.setresgid(4711, 4711, 4711)
os.setresuid(4711, 4711, 4711)
os.execv(sys.argv[2], sys.argv[2:])
"""


@pytest.mark.parametrize("name", ["max_user_namespaces", "max_net_namespaces", "max_mnt_namespaces"])
def test_where_namespaces_are_forbidden_one_line_names_the_setting(as_others_see_it: list[str], name: str) -> None:
    command = [*as_others_see_it, sys.executable, "-c", FORBIDDING, name, IN_NAMESPACES, "--check", "make run"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        if not process.stdout.readline():
            process.communicate()
            pytest.skip("this system has no user namespaces")
        for kind in ("uid_map", "gid_map"):
            Path(f"/proc/{process.pid}/{kind}").write_text("0 0 65536")
        output, errors = process.communicate("\n", timeout=60)
    said = f"make run needs root, or a user namespace, which this system refuses (user.{name} is 0): sudo make run\n"
    assert (process.returncode, output, errors) == (2, "", said)


def test_the_targets_that_need_namespaces_ask_before_they_build() -> None:
    text = (ROOT / "Makefile").read_text()
    for target in ("run", "test", "bench", "bench-quick", "bench-loss", "asan-test", "coverage"):
        lines = re.search(rf"^{target}:\n((?:\t.*\n)+)", text, re.MULTILINE)
        assert lines is not None
        words = [line.strip() for line in lines[1].splitlines()]
        assert words.index('@$(IN_NAMESPACES) --check "make $@"') < words.index("@$(MAKE) --no-print-directory build")


def test_missing_packages_are_asked_for_with_the_command(tmp_path: Path, unique: Callable[[str], str]) -> None:
    package = unique("no-such-package")
    (tmp_path / "packages.txt").write_text(f"bash build\n{package} run test\nother-{package} bench\n")
    (tmp_path / "install-packages").write_bytes((ROOT / "vagrant" / "install-packages").read_bytes())
    (tmp_path / "id").write_text("#!/bin/sh\necho 1000\n")
    for name in ("install-packages", "id"):
        (tmp_path / name).chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    command = [str(tmp_path / "install-packages"), "build", "run"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 2
    assert f"missing packages: sudo apt-get install --no-install-recommends {package}\n" in done.stderr
    assert f"sudo {' '.join(command)}" in done.stderr
