# SPDX-License-Identifier: MIT
"""The package as its users get it: names, stubs, the wheel's contents, and the README's first example as printed."""

import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

import ustack
from ustack.netns import namespace

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
LIMIT_S = 240


def sources(suffix: str) -> set[str]:
    """Files of that suffix by the name they have when installed."""
    found = {str(path.relative_to(ROOT)) for path in (ROOT / "ustack").rglob(f"*{suffix}")}
    for top in ("server", "tools"):
        found |= {f"ustack/{path.relative_to(ROOT)}" for path in (ROOT / top).rglob(f"*{suffix}")}
    return {name for name in found if "__pycache__" not in name}


def modules() -> dict[str, Path]:
    """Extension modules beside their sources, by the name they have when installed."""
    found = {}
    for top, prefix in (("ustack", ""), ("server", "ustack/"), ("tools", "ustack/")):
        for path in (ROOT / top).rglob(f"*{sysconfig.get_config_var('EXT_SUFFIX')}"):
            found[f"{prefix}{path.relative_to(ROOT)}"] = path
    return found


# ---------------------------------------------------------------- names


@pytest.mark.parametrize("name", ustack.__all__)
def test_every_promised_name_is_there(name: str) -> None:
    assert getattr(ustack, name).__name__ == name


def test_a_star_import_brings_what_is_promised() -> None:
    names: dict[str, object] = {}
    exec("from ustack import *", names)
    assert names.keys() - {"__builtins__"} == set(ustack.__all__)


def test_the_names_are_sorted_and_each_is_there_once() -> None:
    assert ustack.__all__ == sorted(set(ustack.__all__))


def test_the_version_is_the_projects() -> None:
    assert f'\nversion = "{ustack.__version__}"\n' in (ROOT / "pyproject.toml").read_text()


def test_importing_the_package_imports_no_tool_of_the_tests() -> None:
    """Nor what is slow to import: a script that opens a stack waits for neither."""
    script = "import sys, ustack; print(*sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert not {"scapy", "hypothesis", "pytest", "pyroute2", "rich", "click"} & set(loaded)


@pytest.mark.parametrize("name", sorted(sources(".pyx")))
def test_every_module_can_be_imported_by_itself(name: str) -> None:
    """No module needs another to have been imported first."""
    module = name.removesuffix(".pyx").replace("/", ".")
    done = subprocess.run([sys.executable, "-c", f"import {module}"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# ---------------------------------------------------------------- the wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Names of the files in a wheel that is built from a copy of the tree."""
    tree = tmp_path_factory.mktemp("tree") / "project"
    skip = shutil.ignore_patterns("__pycache__", "*.so", "*.egg-info", ".git", ".venv", "build", "tests", ".*_cache")
    shutil.copytree(ROOT, tree, ignore=skip)
    # What has been translated and compiled here already is used again where it is up to date.
    generated = ROOT / "build" / "release" / "c"
    if generated.is_dir():
        shutil.copytree(generated, tree / "build" / "release" / "c")
    compiled = tree / "build" / "release" / f"lib.{sysconfig.get_platform()}-{sys.implementation.cache_tag}"
    for name, built in modules().items():
        (compiled / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(built, compiled / name)
    out = tmp_path_factory.mktemp("wheel")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "-q",
            "--no-deps",
            "--no-build-isolation",
            "--no-index",
            "-w",
            out,
            tree,
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    (path,) = out.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        names = set(archive.namelist())
    shutil.rmtree(tree)
    return names


@pytest.mark.timeout(900)
class TestWheel:
    """One build for all of them: seconds if everything is compiled already, else minutes."""

    def test_nothing_lands_beside_the_package(self, wheel: set[str]) -> None:
        assert {name.split("/")[0] for name in wheel} == {"ustack", f"ustack-{ustack.__version__}.dist-info"}

    def test_every_module_is_in_it(self, wheel: set[str]) -> None:
        built = {re.sub(r"\..*\.so$", "", name) for name in wheel if name.endswith(".so")}
        assert built == {name.removesuffix(".pyx") for name in sources(".pyx")}

    def test_the_server_is_in_it(self, wheel: set[str]) -> None:
        assert any(re.fullmatch(r"ustack/server/http\..*\.so", name) for name in wheel)

    def test_every_python_file_is_in_it(self, wheel: set[str]) -> None:
        assert sources(".py") <= wheel

    def test_contracts_are_in_it_for_users_own_applications(self, wheel: set[str]) -> None:
        assert sources(".pxd") <= wheel

    def test_types_are_in_it(self, wheel: set[str]) -> None:
        assert sources(".pyi") | {"ustack/py.typed"} <= wheel

    def test_the_sample_site_is_in_it(self, wheel: set[str]) -> None:
        files = {f"ustack/site/{path.name}" for path in (ROOT / "ustack" / "site").iterdir()}
        assert files
        assert files <= wheel

    def test_the_command_is_in_it(self, wheel: set[str]) -> None:
        assert f"ustack-{ustack.__version__}.dist-info/entry_points.txt" in wheel

    def test_the_licence_is_in_it(self, wheel: set[str]) -> None:
        assert any(name.endswith("/LICENSE") for name in wheel)


# ---------------------------------------------------------------- the README


def first_example() -> str:
    found = re.search(r"^```python\n(.*?)^```$", README.read_text(), re.MULTILINE | re.DOTALL)
    assert found, "the README shows no Python"
    return found[1]


@pytest.mark.root
@pytest.mark.skipif(not README.exists(), reason="there is no README.md")
def test_the_first_example_of_the_readme_works_as_printed(tmp_path: Path, make_namespace: Callable[[], str]) -> None:
    """Run it as a user does, in a namespace so that its addresses are nobody else's; do what it says with curl."""
    here = make_namespace()
    script = tmp_path / "example.py"
    script.write_text(first_example())
    with namespace.inside(here):
        example = subprocess.Popen(
            [sys.executable, "-u", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
    try:
        assert example.stdout is not None
        said = example.stdout.readline()
        command = re.search(r"curl\s+\S+", said)
        assert command, f"it said {said!r}; {example.communicate(timeout=LIMIT_S)[1]}"
        with namespace.inside(here):
            curl = subprocess.run(
                [*command[0].split(), "-s", "--max-time", "60"], capture_output=True, text=True, check=False
            )
        out, errors = example.communicate(timeout=LIMIT_S)
    finally:
        example.kill()
        example.wait()
    assert (curl.returncode, curl.stdout) == (0, "hello\n")
    assert out.startswith("GET / HTTP/1.1\r\n") or out.startswith("GET / HTTP/1.1\n")
    assert (example.returncode, errors) == (0, "")
    assert "hello" not in namespace.names()
