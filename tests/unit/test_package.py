# SPDX-License-Identifier: MIT
"""The package as its users get it: names, stubs, the wheel's contents, and the README's first example as printed."""

import json
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import textwrap
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ustack
from tests.tree import ROOT, TOPS, installed_name, sources
from ustack.lab import namespace

README = ROOT / "README.md"
LIMIT_S = 240


def installed_sources(suffix: str) -> set[str]:
    """Files of that suffix by the name they have when installed."""
    return {installed_name(path) for path in sources(suffix)}


def modules() -> dict[str, Path]:
    """Extension modules beside their sources, by the name they have when installed."""
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    return {installed_name(path): path for top in TOPS for path in (ROOT / top).rglob(f"*{suffix}")}


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


@pytest.mark.parametrize("name", sorted(installed_sources(".pyx")))
def test_every_module_can_be_imported_by_itself(name: str) -> None:
    """No module needs another to have been imported first."""
    module = name.removesuffix(".pyx").replace("/", ".")
    done = subprocess.run([sys.executable, "-c", f"import {module}"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# ---------------------------------------------------------------- the source distribution and the wheel


def run(*command: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a program that must end well."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, (command, done.stdout[-1000:], done.stderr[-3000:])
    return done


def build(what: str, tree: Path, out: Path) -> Path:
    """`python -m build`, with the tools of this environment instead of an isolated one. Returns what it made."""
    run(sys.executable, "-m", "build", f"--{what}", "--no-isolation", "--outdir", out, tree)
    (made,) = out.glob("*.whl" if what == "wheel" else "*.tar.gz")
    return made


def unpack(sdist: Path, where: Path) -> Path:
    """The tree that a source distribution holds, with what has been translated and compiled here already put beside it:
    it is used again where it is up to date."""
    run("tar", "-xzf", sdist, "-C", where)
    (tree,) = where.iterdir()
    generated = ROOT / "build" / "release" / "c"
    if generated.is_dir():
        shutil.copytree(generated, tree / "build" / "release" / "c")
    compiled = tree / "build" / "release" / f"lib.{sysconfig.get_platform()}-{sys.implementation.cache_tag}"
    for name, built in modules().items():
        if public(name):
            (compiled / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(built, compiled / name)
    return tree


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A source distribution of this tree."""
    tree = tmp_path_factory.mktemp("tree") / "project"
    skip = shutil.ignore_patterns(
        "__pycache__", "*.so", "*.egg-info", ".git", ".venv", "build", "dist", ".*_cache", ".hypothesis"
    )
    shutil.copytree(ROOT, tree, ignore=skip)
    return build("sdist", tree, tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel that is built from the source distribution."""
    return build("wheel", unpack(sdist, tmp_path_factory.mktemp("unpacked")), tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def contents(wheel: Path) -> set[str]:
    """Names of the wheel's files."""
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a virtual environment with the wheel in it.

    What ustack depends on is this environment's, found behind everything else; this source tree is not on its path.
    """
    place = tmp_path_factory.mktemp("installed") / "venv"
    run(sys.executable, "-m", "venv", place)
    python = place / "bin" / "python"
    run(place / "bin" / "pip", "install", "-q", "--no-deps", "--no-index", wheel)
    (packages,) = place.glob("lib/python*/site-packages")
    (packages / "behind.pth").write_text(sysconfig.get_path("purelib") + "\n" + sysconfig.get_path("platlib") + "\n")
    found = run(
        python, "-c", "import ustack, ustack.server.http as http; print(ustack.__file__, http.__file__)", cwd="/"
    )
    assert all(name.startswith(str(packages)) for name in found.stdout.split())
    return python


def public(name: str) -> bool:
    """False for what only this tree's own tests need: compiled shims, and what is fuzzed."""
    return not name.startswith(("ustack/testing/parts/", "ustack/tools/fuzz/"))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """The sources alone, at a place of their own."""
    for path in sources():
        (tmp_path / "tree" / path.relative_to(ROOT)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, tmp_path / "tree" / path.relative_to(ROOT))
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy2(ROOT / name, tmp_path / "tree" / name)
    return tmp_path / "tree"


class TestDeclarationsOfTheServer:
    """build/installed, where Cython finds server/ and tools/ by the names that they are installed by."""

    LINKS = ("__init__.py", "server", "tools")

    def begin(self, tree: Path) -> subprocess.Popen[str]:
        """A build that compiles nothing."""
        return subprocess.Popen(
            [sys.executable, "setup.py", "-q", "build_ext", "--inplace"],
            cwd=tree,
            env={"PATH": "/usr/bin:/bin", "USTACK_ONLY": "none"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def check(self, tree: Path, *builds: subprocess.Popen[str]) -> None:
        for one in builds:
            said, _ = one.communicate(timeout=LIMIT_S)
            assert one.returncode == 0, said
        package = tree / "build" / "installed" / "ustack"
        assert sorted(path.name for path in package.iterdir()) == sorted(self.LINKS)
        for name in self.LINKS:
            assert (package / name).is_symlink()
            there = tree / "ustack" / name if name == "__init__.py" else tree / name
            assert (package / name).resolve() == there.resolve()

    def test_two_builds_at_once(self, tree: Path) -> None:
        self.check(tree, self.begin(tree), self.begin(tree), self.begin(tree))

    @pytest.mark.parametrize("links", [True, False])
    def test_a_copied_tree_has_its_own(self, tree: Path, links: bool) -> None:
        """Also when the copy followed the links: its copies would go out of date."""
        self.check(tree, self.begin(tree))
        there = tree.parent / "another"
        shutil.copytree(tree, there, symlinks=links)
        self.check(there, self.begin(there))

    def test_a_renamed_tree_keeps_them(self, tree: Path) -> None:
        self.check(tree, self.begin(tree))
        self.check(tree.rename(tree.parent / "another"))


class TestChangesMeanwhile:
    """An edit in the middle of a build, after Cython has read the file and before it has written what it made of it."""

    EDITED = """
import os, runpy, sys
from pathlib import Path

import Cython.Build

def translate(*arguments, before=Cython.Build.cythonize, **options):
    translated = before(*arguments, **options)
    Path("ustack/one.pyx").write_text("answer = 2\\n")
    Path(translated[0].sources[0]).touch()
    return translated

Cython.Build.cythonize = translate
sys.argv = ["setup.py", "-q", "build_ext", "--inplace"]
runpy.run_path("setup.py", run_name="__main__")
"""

    def test_it_is_built_by_the_next_one(self, tree: Path) -> None:
        env = {"PATH": "/usr/bin:/bin", "USTACK_OPTIMIZE": "-O0"}
        for top in TOPS:
            shutil.rmtree(tree / top)
        (tree / "ustack").mkdir()
        for name, text in (("__init__.py", ""), ("one.pxd", ""), ("one.pyx", "answer = 1\n")):
            (tree / "ustack" / name).write_text(text)
        for command, answer in ((("-c", self.EDITED), "1"), (("setup.py", "-q", "build_ext", "--inplace"), "2")):
            run(sys.executable, *command, cwd=tree, env=env)
            said = run(sys.executable, "-c", "from ustack.one import answer; print(answer)", cwd=tree)
            assert said.stdout == f"{answer}\n"


class TestOrphans:
    """What an earlier build made of a source that is gone, or has moved, is removed by the next one."""

    LIB = "build/release/lib.linux-x86_64-cpython-311/"
    TEMP = "build/release/temp.linux-x86_64-cpython-311/build/release/c/"
    SO = ".cpython-311-x86_64-linux-gnu.so"
    GENERATED = "/* Generated by Cython 3.1.2 */\n"

    def put(self, tree: Path, *names: str, text: str = "") -> None:
        for name in names:
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            (tree / name).write_text(text)

    def build(self, tree: Path, *command: str) -> None:
        run(sys.executable, "setup.py", "-q", *command, cwd=tree, env={"PATH": "/usr/bin:/bin", "USTACK_ONLY": "none"})

    GONE = (
        f"{LIB}ustack/gone{SO}",
        f"{LIB}ustack/tcp/gone{SO}",
        f"{LIB}ustack/server/gone{SO}",
        f"{LIB}ustack/tools/gone{SO}",
        f"{LIB}ustack/gone.py",
        f"{LIB}ustack/room_that_moved/__init__.py",
        f"{LIB}ustack/server/room_that_moved/__init__.py",
        f"{TEMP}ustack/gone.o",
        f"{TEMP}server/gone.o",
        "build/release/c/ustack/tcp/gone.c",
        "build/release/c/server/gone.c",
        "build/release/warnings/ustack.tcp.gone",
        "build/release/warnings/ustack.server.gone",
        f"ustack/tcp/gone{SO}",
        f"server/gone{SO}",
        "ustack/tcp/gone.c",
    )
    THERE = (
        f"{LIB}ustack/tcp/input{SO}",
        f"{LIB}ustack/server/http{SO}",
        f"{LIB}ustack/testing/parts/tcp{SO}",
        f"{LIB}ustack/errors.py",
        f"{TEMP}ustack/tcp/input.o",
        f"{TEMP}server/http.o",
        "build/release/c/ustack/tcp/input.c",
        "build/release/c/server/http.c",
        "build/release/warnings/ustack.tcp.input",
        "build/release/warnings/ustack.server.http",
        f"build/debug/lib.linux-x86_64-cpython-311/ustack/gone{SO}",
        f"ustack/tcp/input{SO}",
        f"server/http{SO}",
        "ustack/tcp/input.c",
    )

    def test_they_are_removed_and_nothing_else(self, tree: Path) -> None:
        """What another mode's build made is that one's; what no build made is not touched."""
        self.put(tree, *self.GONE, *self.THERE, text=self.GENERATED)
        by_hand = ("tools/reference/written_by_hand.c", "ustack/written_by_hand.c", "ustack/a.so")
        self.put(tree, *by_hand, text="int answer = 42;\n")
        self.build(tree, "build_ext", "--inplace")
        assert [name for name in self.GONE if (tree / name).exists()] == []
        assert not list(tree.rglob("room_that_moved"))
        assert [name for name in (*self.THERE, *by_hand) if not (tree / name).exists()] == []

    def test_a_wheel_does_not_take_along_shims_that_were_built_beside_the_sources(self, tree: Path) -> None:
        self.put(tree, f"{self.LIB}ustack/testing/parts/tcp{self.SO}", f"{self.LIB}ustack/testing/peer.py")
        self.put(tree, f"{self.LIB}ustack/tools/fuzz/frames{self.SO}")
        self.build(tree, "build")
        assert not (tree / self.LIB / "ustack/testing/parts").exists()
        assert not (tree / self.LIB / "ustack/tools/fuzz").exists()
        assert (tree / self.LIB / "ustack/testing/peer.py").exists()


class TestWarnings:
    """What the compiler says about a module is kept until it is compiled again."""

    NOISY = "def answer():\n    cdef unsigned int most = 42\n    cdef int i = 1\n    return i < most\n"
    QUIET = "def answer():\n    return 42\n"
    WRONG = 'cdef extern from *:\n    """\n    #error no\n    """\n'

    def build(self, tree: Path, source: str) -> subprocess.CompletedProcess[str]:
        module = tree / "ustack" / "noisy.pyx"
        if not module.exists() or module.read_text() != source:
            module.write_text(source)
        return subprocess.run(
            [sys.executable, "setup.py", "-q", "build_ext", "--inplace"],
            cwd=tree,
            env={"PATH": "/usr/bin:/bin", "USTACK_ONLY": "ustack/noisy", "USTACK_OPTIMIZE": "-O0", "LC_ALL": "C"},
            capture_output=True,
            text=True,
            check=False,
        )

    def kept(self, tree: Path) -> str:
        return "".join(path.read_text() for path in (tree / "build" / "release" / "warnings").iterdir())

    def test_they_are_kept_when_nothing_is_done_and_go_when_they_are_mended(self, tree: Path) -> None:
        first = self.build(tree, self.NOISY)
        assert first.returncode == 0
        assert "-Wsign-compare" in first.stderr
        assert "-Wsign-compare" in self.kept(tree)
        again = self.build(tree, self.NOISY)
        assert "warning" not in again.stderr
        assert "-Wsign-compare" in self.kept(tree)
        assert self.build(tree, self.QUIET).returncode == 0
        assert self.kept(tree) == ""

    def test_a_module_that_cannot_be_compiled_still_ends_the_build(self, tree: Path) -> None:
        done = self.build(tree, self.WRONG)
        assert done.returncode != 0
        assert "#error no" in done.stderr


@pytest.mark.timeout(900)
class TestSourceDistribution:
    def test_it_holds_every_source(self, sdist: Path) -> None:
        with tarfile.open(sdist) as archive:
            names = {name.partition("/")[2] for name in archive.getnames()}
        assert {str(path.relative_to(ROOT)) for path in sources()} <= names
        assert {"README.md", "LICENSE", "Makefile", "setup.py", "ustack/py.typed", "tests/conftest.py"} <= names
        assert "tools/reference/epoll_server.c" in names

    def test_it_holds_nothing_that_was_made(self, sdist: Path) -> None:
        with tarfile.open(sdist) as archive:
            names = archive.getnames()
        assert not [name for name in names if name.endswith((".so", ".pyc", ".o")) or "/build/" in name]
        by_hand = {f"ustack-{ustack.__version__}/tools/reference/{name}.c" for name in ("epoll_server", "lwip_files")}
        assert {name for name in names if name.endswith(".c")} == by_hand

    @pytest.mark.parametrize(
        "missing", ["ustack/engine/poll.pyx", "ustack/tcp/input.pyx", "server/http.pyx", "server/chunks.pyx", "ustack"]
    )
    def test_a_build_without_sources_fails_and_says_so(self, sdist: Path, tmp_path: Path, missing: str) -> None:
        """Instead of making a wheel that cannot be imported."""
        run("tar", "-xzf", sdist, "-C", tmp_path)
        (tree,) = tmp_path.iterdir()
        gone = list((tree / missing).rglob("*.p[yx][xdi]")) if missing == "ustack" else [tree / missing]
        for path in gone:
            path.unlink()
        done = subprocess.run(
            [sys.executable, "setup.py", "-q", "bdist_wheel"], cwd=tree, capture_output=True, text=True, check=False
        )
        assert done.returncode != 0
        assert "these sources are not complete" in done.stderr
        assert not list(tree.rglob("*.whl"))


@pytest.mark.timeout(900)
class TestWheel:
    """One build for all of them: seconds if everything is compiled already, else minutes."""

    def test_nothing_lands_beside_the_package(self, contents: set[str]) -> None:
        assert {name.split("/")[0] for name in contents} == {"ustack", f"ustack-{ustack.__version__}.dist-info"}

    def test_every_module_is_in_it(self, contents: set[str]) -> None:
        built = {re.sub(r"\..*\.so$", "", name) for name in contents if name.endswith(".so")}
        assert built == {name.removesuffix(".pyx") for name in installed_sources(".pyx") if public(name)}

    def test_the_shims_of_the_unit_tests_are_not_in_it(self, contents: set[str]) -> None:
        assert not [name for name in contents if not public(name)]
        assert any(name.startswith("ustack/testing/recorder.") for name in contents)

    def test_every_python_file_is_in_it(self, contents: set[str]) -> None:
        assert {name for name in installed_sources(".py") if public(name)} <= contents

    def test_contracts_are_in_it_for_users_own_applications(self, contents: set[str]) -> None:
        assert {name for name in installed_sources(".pxd") if public(name)} <= contents

    def test_types_are_in_it(self, contents: set[str]) -> None:
        assert {name for name in installed_sources(".pyi") if public(name)} | {"ustack/py.typed"} <= contents

    def test_the_example_of_an_application_is_in_it(self, contents: set[str]) -> None:
        assert {name for name in installed_sources(".pyx") if name.startswith("ustack/server/")} <= contents

    def test_the_sample_site_is_in_it(self, contents: set[str]) -> None:
        files = {f"ustack/site/{path.name}" for path in (ROOT / "ustack" / "site").iterdir()}
        assert files
        assert files <= contents

    def test_the_command_is_in_it(self, contents: set[str]) -> None:
        assert f"ustack-{ustack.__version__}.dist-info/entry_points.txt" in contents

    def test_the_licence_is_in_it(self, contents: set[str]) -> None:
        assert any(name.endswith("/LICENSE") for name in contents)

    def test_modules_carry_no_debug_information(self, wheel: Path, tmp_path: Path) -> None:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(tmp_path)
        for module in tmp_path.rglob("*.so"):
            assert b".debug_info" not in module.read_bytes(), module.name


@pytest.mark.timeout(900)
class TestInstalled:
    def test_every_module_can_be_imported(self, installed: Path) -> None:
        """Without the source tree, and without Cython."""
        public_names = sorted(filter(public, installed_sources(".pyx")))
        names = [name.removesuffix(".pyx").replace("/", ".") for name in public_names]
        script = (
            f"import sys; sys.modules['Cython'] = None; import importlib; [importlib.import_module(n) for n in {names}]"
        )
        run(installed, "-c", script, cwd="/")

    def test_the_command_works(self, installed: Path) -> None:
        said = json.loads(run(installed.parent / "ustack", "info", cwd="/").stdout)
        assert said["version"] == ustack.__version__
        assert said["build"] == "release"

    def test_the_test_kit_works(self, installed: Path) -> None:
        script = """
            from ustack.testing.states import established
            with established() as scene:
                scene.peer.send("PA", payload=b"hello")
                scene.peer.wait(500_000_000)
                scene.peer.expect("A", seq=1, ack=6)
                assert scene.read() == b"hello"
        """
        run(installed, "-c", textwrap.dedent(script), cwd="/")

    @pytest.mark.root
    def test_the_first_example_of_the_readme_works(
        self, installed: Path, tmp_path: Path, make_namespace: Callable[[], str]
    ) -> None:
        run_first_example(installed, tmp_path, make_namespace())

    def test_an_application_of_somebody_else_is_built_and_serves(self, installed: Path, tmp_path: Path) -> None:
        """Fifty lines of nogil Cython outside of this tree, against the declarations that the wheel brings."""
        (tmp_path / "echo.pyx").write_text(ECHO)
        (tmp_path / "setup.py").write_text(ECHO_SETUP)
        run(installed, "setup.py", "-q", "build_ext", "--inplace", cwd=tmp_path)
        said = run(installed, "-c", textwrap.dedent(ECHO_CLIENT), cwd=tmp_path).stdout
        assert said == "all of it came back, and nothing is held\n"

    def test_the_servers_declarations_serve_others(self, installed: Path, tmp_path: Path) -> None:
        (tmp_path / "bodies.pyx").write_text(BODIES)
        (tmp_path / "setup.py").write_text(ECHO_SETUP.replace("echo", "bodies"))
        run(installed, "setup.py", "-q", "build_ext", "--inplace", cwd=tmp_path)
        script = "import bodies; print(bodies.end_of(b'5\\r\\nhello\\r\\n0\\r\\n\\r\\nGET'), bodies.end_of(b'x'))"
        assert run(installed, "-c", script, cwd=tmp_path).stdout == "15 -1\n"


BODIES = '''# cython: language_level=3
"""Where a chunked body ends, with the server's own reader."""

from libc.stdint cimport uint8_t
from libc.string cimport memset

from ustack.server.chunks cimport chunks_read, chunks_t


def end_of(bytes data not None):
    cdef chunks_t chunks
    cdef size_t used = 0
    memset(&chunks, 0, sizeof(chunks))
    chunks.left = 1000
    return used if chunks_read(&chunks, <const uint8_t *><const char *>data, len(data), &used) == 1 else -1
'''

ECHO = '''# cython: language_level=3
"""What arrives goes back; the end of the data ends the connection."""

from libc.stdint cimport uint8_t, uint64_t

from ustack.buf.lent cimport lent_from_copy, lent_t, lent_unref
from ustack.application cimport ACCEPT_TAKEN, Application, application_t, close_reason_t, conn_t, transport_t


cdef int echo_accept(application_t *app, const transport_t *transport, conn_t *conn) noexcept nogil:
    (<uint64_t *>app.context)[0] += 1
    return ACCEPT_TAKEN


cdef size_t echo_data(application_t *app, const transport_t *transport, conn_t *conn, const uint8_t *data,
                      size_t length) noexcept nogil:
    cdef lent_t *lent
    if transport.send_queued(transport, conn) > 65536:
        transport.want_writable(transport, conn)
        return 0
    lent = lent_from_copy(data, length)
    if lent == NULL:
        return 0
    transport.send(transport, conn, lent, 0, length)
    lent_unref(lent)
    return length


cdef void echo_writable(application_t *app, const transport_t *transport, conn_t *conn) noexcept nogil:
    transport.resume(transport, conn)


cdef void echo_eof(application_t *app, const transport_t *transport, conn_t *conn) noexcept nogil:
    transport.close(transport, conn)


cdef void echo_timeout(application_t *app, const transport_t *transport, conn_t *conn) noexcept nogil:
    pass


cdef void echo_closed(application_t *app, const transport_t *transport, conn_t *conn,
                      close_reason_t reason) noexcept nogil:
    pass


cdef class Echo(Application):
    cdef readonly uint64_t accepted

    def __cinit__(self):
        self.c.context = &self.accepted
        self.c.on_accept = echo_accept
        self.c.on_data = echo_data
        self.c.on_writable = echo_writable
        self.c.on_eof = echo_eof
        self.c.on_timeout = echo_timeout
        self.c.on_closed = echo_closed
'''

ECHO_SETUP = """
from Cython.Build import cythonize
from setuptools import Extension, setup
setup(name="echo", ext_modules=cythonize([Extension("echo", ["echo.pyx"], extra_compile_args=["-O0"])]))
"""

ECHO_CLIENT = """
    from echo import Echo
    from ustack import SimNetwork, Stack
    network, clock = SimNetwork(), [0]
    server, client = Stack(network.a, "198.18.0.2/24", now_ns=0), Stack(network.b, "198.18.0.1/24", now_ns=0)

    def turn():
        clock[0] += 1_000_000
        network.advance(clock[0])
        server.poll(clock[0])
        client.poll(clock[0])

    echo = Echo()
    server.listen(7, application=echo)
    connection = client.connect("198.18.0.2", 7, timeout=0)
    data, sent, back = b"what goes there " * 8192, 0, b""
    for _ in range(20_000):
        turn()
        try:
            sent += connection.send(data[sent:sent + 16384], timeout=0) if sent < len(data) else 0
        except (BlockingIOError, TimeoutError):
            pass
        try:
            back += connection.receive(65536, timeout=0)
        except (BlockingIOError, TimeoutError):
            pass
        if len(back) == len(data):
            break
    assert back == data, (sent, len(back))
    assert echo.accepted == 1
    connection.close()
    for _ in range(100):
        turn()
    client.close()
    server.close()
    assert not any(server.leaks().values()), server.leaks()
    print("all of it came back, and nothing is held")
"""


# ---------------------------------------------------------------- the README


def first_example() -> str:
    found = re.search(r"^```python\n(.*?)^```$", README.read_text(), re.MULTILINE | re.DOTALL)
    assert found, "the README shows no Python"
    return found[1]


@pytest.mark.root
def test_the_first_example_of_the_readme_works_as_printed(tmp_path: Path, make_namespace: Callable[[], str]) -> None:
    command = re.search(r"^    sudo (\S+/python) \S+\.py$", README.read_text(), re.MULTILINE)
    assert command, "the README does not say how to run it"
    python = ROOT / command[1]
    run_first_example(python if python.exists() else Path(sys.executable), tmp_path, make_namespace())


def run_first_example(python: Path, tmp_path: Path, here: str) -> None:
    """Run it as a user does, in a namespace so that its addresses are nobody else's; do what it says with curl."""
    script = tmp_path / "example.py"
    script.write_text(first_example())
    with namespace.inside(here):
        example = subprocess.Popen(
            [python, "-u", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd="/"
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
