# SPDX-License-Identifier: MIT
"""Build of the extension modules. Metadata is in pyproject.toml.

USTACK_BUILD=release|debug|trace|asan|fuzz chooses the build mode. Each mode has its own directory for generated C,
objects and libraries under build/, so that changing the mode never reuses the other's objects:

    release   optimised; `build_ext --inplace` puts the modules beside their sources
    debug     ensure() is live, bounds are checked, leaks are named
    trace     debug, and coverage sees nogil lines (plugin Cython.Coverage)
    asan      debug, under AddressSanitizer and UndefinedBehaviorSanitizer (run with LD_PRELOAD=libasan.so)
    fuzz      asan by clang, and each branch and comparison tells libFuzzer (run by tools/fuzz)

USTACK_ONLY=ustack/link,ustack/ip limits a build to some folders (none: no module at all).
USTACK_SHIMS=1 puts the compiled shims of the unit tests into a wheel, to run the tests against what is installed.
USTACK_OPTIMIZE=-O1 builds a release sooner, for tests of what does not depend on speed.
"""

import copy
import os
import re
import shutil
import sys
import time
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

BEGAN_NS = time.time_ns()
ROOT = Path(__file__).parent
MODES = ("release", "debug", "trace", "asan", "fuzz")
MODE = os.environ.get("USTACK_BUILD", "release")
if MODE not in MODES:
    raise SystemExit(f"USTACK_BUILD={MODE}: must be one of {', '.join(MODES)}")

# One compiler for the modules and the runtimes below them: libFuzzer and its sanitizers are clang's.
if MODE == "fuzz":
    os.environ["CC"] = os.environ.get("USTACK_CLANG", "clang-16")

SANITIZE = [
    "-fno-omit-frame-pointer",
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=undefined",
    "-fno-sanitize=alignment",
]
COMPILE = {
    # Python's own flags ask for debug information, which is fifty times the code.
    "release": [os.environ.get("USTACK_OPTIMIZE", "-O3"), "-g0"],
    "debug": ["-O1", "-g", "-DUSTACK_DEBUG"],
    "trace": ["-O0", "-g", "-DUSTACK_DEBUG", "-DCYTHON_TRACE=1", "-DCYTHON_TRACE_NOGIL=1"],
    "asan": ["-O1", "-g", "-DUSTACK_DEBUG", *SANITIZE],
    "fuzz": [
        "-O1",
        "-gline-tables-only",
        "-DUSTACK_DEBUG",
        "-D__SANITIZE_ADDRESS__=1",  # gcc's word for it
        *SANITIZE,
        "-fsanitize-coverage=inline-8bit-counters,pc-table,trace-cmp,indirect-calls",
    ],
}[MODE]
LINK = {"asan": ["-fsanitize=address,undefined"], "release": ["-Wl,--strip-debug"]}.get(MODE, [])

# Where the sources are, and the package that they are installed as.
TOPS = (("ustack", "ustack"), ("server", "ustack.server"), ("tools", "ustack.tools"))

# What Cython searches for declarations (.pxd): this tree, and a package in which server/ and tools/ have the names that
# they are installed by.
INSTALLED = Path("build/installed")

# What only this project's own tests use, shims that show single records and what is fuzzed: built in the source tree,
# left out of a wheel.
SHIMS = (Path("ustack/testing/parts"), Path("tools/fuzz"))
WITH_SHIMS = MODE != "release" or "--inplace" in sys.argv or os.environ.get("USTACK_SHIMS") == "1"

DIRECTIVES = {
    "language_level": 3,
    "boundscheck": MODE != "release",
    "wraparound": False,
    "cdivision": True,
    "initializedcheck": MODE != "release",
    # Signatures come from the methods themselves (binding); those of classes open their docstrings.
    "embedsignature": False,
    "linetrace": MODE == "trace",
}


def is_shim(source: Path) -> bool:
    """Does this file or folder belong to the unit tests of the source tree alone?"""
    return any(folder in (source, *source.parents) for folder in SHIMS)


def check_complete() -> None:
    """Stop where sources are missing: a build would succeed, and its package could not be imported."""
    for top, _ in TOPS:
        declared = sorted((ROOT / top).rglob("*.pxd"))
        if not declared and top == "ustack":
            raise SystemExit("no Cython declarations below ustack/: these sources are not complete")
        for contract in declared:
            # What defines nothing of its own (constants, records, inline functions) needs no module.
            defines = re.search(
                r"^cdef (?!inline|extern|enum|struct|packed)[^=#]*\(|^cdef class ", contract.read_text(), re.M
            )
            if defines and not contract.with_suffix(".pyx").exists():
                raise SystemExit(
                    f"{contract.relative_to(ROOT).with_suffix('.pyx')} is missing: these sources are not complete"
                )
        for stub in sorted((ROOT / top).rglob("*.pyi")):
            if not stub.with_suffix(".pyx").exists() and not stub.with_suffix(".py").exists():
                raise SystemExit(
                    f"{stub.relative_to(ROOT).with_suffix('.pyx')} is missing: these sources are not complete"
                )


def link_installed() -> None:
    """Make or mend INSTALLED: relative links, so that a moved tree takes them along, each put in place at once, so
    that two builds do not disturb each other."""
    package = ROOT / INSTALLED / "ustack"
    package.mkdir(parents=True, exist_ok=True)
    for name, target in (("__init__.py", "ustack/__init__.py"), ("server", "server"), ("tools", "tools")):
        link, wanted = package / name, os.path.join("..", "..", "..", target)
        if link.is_symlink() and os.readlink(link) == wanted:
            continue
        if link.is_dir() and not link.is_symlink():  # a copy that followed the links, and is out of date by now
            shutil.rmtree(link)
        made = package / f".{name}.{os.getpid()}"
        made.unlink(missing_ok=True)
        made.symlink_to(wanted)
        made.replace(link)


def source_of(built: Path) -> Path:
    """What a file below build/MODE/lib* comes from, by its name there. A module: its .pyx."""
    for top, package in reversed(TOPS):
        folder = Path(*package.split("."))
        if folder in (built, *built.parents):
            built = Path(top) / built.relative_to(folder)
            break
    return made_from(built) if built.suffix == ".so" else built


def made_from(built: Path) -> Path:
    """The .pyx that a module, an object or a translation comes from."""
    return built.with_name(built.name.partition(".")[0] + ".pyx")


def translated_here(file: Path) -> bool:
    """Has Cython written this .c?"""
    with file.open("rb") as text:
        return text.read(24).startswith(b"/* Generated by Cython")


def remove_orphans() -> None:
    """Remove what earlier builds made of sources that are gone, or have moved: it could still be imported, and a wheel
    would take it along. So would it take shims that a build beside the sources has left."""
    build = ROOT / "build" / MODE
    orphans = []
    for library in build.glob("lib*"):
        for file in library.rglob("*"):
            source = source_of(file.relative_to(library))
            unwanted = is_shim(source) and not WITH_SHIMS
            if file.name != "__pycache__" and file.suffix != ".pyc" and (unwanted or not (ROOT / source).exists()):
                orphans.append(file)
    for kind, suffix in ((build / "c", ".c"), *((folder / f"build/{MODE}/c", ".o") for folder in build.glob("temp*"))):
        orphans += [
            file for file in kind.rglob(f"*{suffix}") if not (ROOT / made_from(file.relative_to(kind))).exists()
        ]
    for top, _ in TOPS:
        beside = [*(ROOT / top).rglob("*.cpython-*.so"), *filter(translated_here, (ROOT / top).rglob("*.c"))]
        orphans += [file for file in beside if not made_from(file).exists()]
    for said in (build / "warnings").glob("*"):
        if not (ROOT / source_of(Path(*said.name.split(".")).with_suffix(".so"))).exists():
            orphans.append(said)
    for path in orphans:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def date_back(built: Path) -> None:
    """What this build has made bears the time of its beginning: a source that changes while it is read is newer, and
    the next build makes it again."""
    if built.stat().st_mtime_ns > BEGAN_NS:
        os.utime(built, ns=(BEGAN_NS, BEGAN_NS))


class KeepWarnings(build_ext):
    """Keeps what the compiler says about a module in build/MODE/warnings until the module is compiled again, so that a
    build in which nothing is done does not hide it: `make lint` wants none."""

    def build_extension(self, extension: Extension) -> None:
        """Compile and link one module, through a shell that writes down what the compiler says."""
        said = ROOT / "build" / MODE / "warnings" / extension.name
        said.parent.mkdir(parents=True, exist_ok=True)
        one = copy.copy(self)  # modules are compiled at the same time
        one.compiler = copy.copy(self.compiler)
        keep = '"$@" 2> "$0"; status=$?; cat "$0" >&2; [ -s "$0" ] || rm -f "$0"; exit $status'
        one.compiler.compiler_so = ["/bin/sh", "-c", keep, str(said), *self.compiler.compiler_so]
        build_ext.build_extension(one, extension)
        date_back(Path(self.get_ext_fullpath(extension.name)))


def extensions() -> list[Extension]:
    """One small extension for each .pyx: an edit rebuilds one file."""
    only = [name for name in os.environ.get("USTACK_ONLY", "").split(",") if name]
    found = []
    for top, package in TOPS:
        for source in sorted((ROOT / top).rglob("*.pyx")):
            relative = source.relative_to(ROOT)
            if only and not any(str(relative).startswith(prefix) for prefix in only):
                continue
            if is_shim(relative) and not WITH_SHIMS:
                continue
            module = ".".join([package, *relative.with_suffix("").parts[1:]])
            found.append(
                Extension(
                    module,
                    [str(relative)],
                    depends=["setup.py"],  # its flags
                    extra_compile_args=[
                        *COMPILE,
                        "-fno-strict-aliasing",
                        "-fvisibility=hidden",
                        "-Wall",
                        "-Wno-unused-function",
                        f'-DUSTACK_BUILD_MODE="{MODE}"',
                    ],
                    extra_link_args=LINK,
                )
            )
    return found


def packages() -> list[str]:
    """Every folder with an __init__.py, by the name that it is installed as."""
    found = []
    for top, package in TOPS:
        for file in sorted((ROOT / top).rglob("__init__.py")):
            folder = file.parent.relative_to(ROOT)
            if WITH_SHIMS or not is_shim(folder):
                found.append(".".join([package, *folder.parts[1:]]))
    return found


def modules() -> list[Extension]:
    """The extensions, translated to C where the command that was given compiles."""
    if sys.argv[1:2] and sys.argv[1] in ("egg_info", "dist_info", "sdist"):
        return extensions()
    link_installed()
    remove_orphans()
    # The coverage plugin looks for the C of a module beside its source.
    directory = "" if MODE == "trace" else f"build/{MODE}/c"
    wanted = extensions()
    c_files = [ROOT / directory / Path(extension.sources[0]).with_suffix(".c") for extension in wanted]
    try:
        translated: list[Extension] = cythonize(
            wanted,
            build_dir=directory or None,
            compiler_directives=DIRECTIVES,
            include_path=[".", str(INSTALLED)],
            nthreads=2,
            show_all_warnings=False,
        )
    finally:  # one that cannot be translated leaves the others translated
        for c_file in filter(Path.exists, c_files):
            date_back(c_file)
    return translated


check_complete()
setup(
    cmdclass={"build_ext": KeepWarnings},
    ext_modules=modules(),
    packages=packages(),
    # Else they come along as data of the package above.
    exclude_package_data={} if WITH_SHIMS else {"ustack.testing": ["parts/*"], "ustack.tools": ["fuzz/*"]},
    options={
        "build": {"build_base": f"build/{MODE}"},
        "build_ext": {"parallel": 2},
    },
)
