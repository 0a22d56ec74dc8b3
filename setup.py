# SPDX-License-Identifier: MIT
"""Build of the extension modules. Metadata is in pyproject.toml.

USTACK_BUILD=release|debug|trace|asan chooses the build mode. Each mode has its own directory for generated C, objects
and libraries under build/, so that changing the mode never reuses the other's objects:

    release   optimised; `build_ext --inplace` puts the modules beside their sources
    debug     ensure() is live, bounds are checked, leaks are named
    trace     debug, and coverage sees nogil lines (plugin Cython.Coverage)
    asan      debug, under AddressSanitizer and UndefinedBehaviorSanitizer (run with LD_PRELOAD=libasan.so)

USTACK_ONLY=ustack/link,ustack/ip limits a build to some folders.
"""

import os
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

ROOT = Path(__file__).parent
MODES = ("release", "debug", "trace", "asan")
MODE = os.environ.get("USTACK_BUILD", "release")
if MODE not in MODES:
    raise SystemExit(f"USTACK_BUILD={MODE}: must be one of {', '.join(MODES)}")

COMPILE = {
    "release": ["-O3"],
    "debug": ["-O1", "-g", "-DUSTACK_DEBUG"],
    "trace": ["-O0", "-g", "-DUSTACK_DEBUG", "-DCYTHON_TRACE=1", "-DCYTHON_TRACE_NOGIL=1"],
    "asan": [
        "-O1",
        "-g",
        "-DUSTACK_DEBUG",
        "-fno-omit-frame-pointer",
        "-fsanitize=address,undefined",
        "-fno-sanitize-recover=undefined",
        "-fno-sanitize=alignment",
    ],
}[MODE]
LINK = ["-fsanitize=address,undefined"] if MODE == "asan" else []

DIRECTIVES = {
    "language_level": 3,
    "boundscheck": MODE != "release",
    "wraparound": False,
    "cdivision": True,
    "initializedcheck": MODE != "release",
    "embedsignature": True,
    "linetrace": MODE == "trace",
}


def extensions() -> list[Extension]:
    """One small extension for each .pyx: an edit rebuilds one file."""
    only = [name for name in os.environ.get("USTACK_ONLY", "").split(",") if name]
    found = []
    for top, package in (("ustack", "ustack"), ("server", "ustack.server"), ("tools", "ustack.tools")):
        for source in sorted((ROOT / top).rglob("*.pyx")):
            relative = source.relative_to(ROOT)
            if only and not any(str(relative).startswith(prefix) for prefix in only):
                continue
            module = ".".join([package, *relative.with_suffix("").parts[1:]])
            found.append(
                Extension(
                    module,
                    [str(relative)],
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


setup(
    ext_modules=cythonize(
        extensions(),
        build_dir=f"build/{MODE}/c",
        compiler_directives=DIRECTIVES,
        include_path=["."],
        nthreads=0 if MODE == "trace" else 2,
        show_all_warnings=False,
    ),
    options={
        "build": {"build_base": f"build/{MODE}"},
        "build_ext": {"parallel": 2},
    },
)
