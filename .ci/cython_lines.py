# SPDX-License-Identifier: MIT
"""Cython's coverage plugin without a line of Python in what it is asked for each traced line and each traced call.

Python runs signal handlers where Python code runs. Under Cython's own plugin that is in the plugin, called from the
middle of a nogil function: what a test's handler raises there never arrives at the test, and coverage disables the
plugin, so that nothing is measured from then on. It is the slower way, too.
"""

import operator
import os
from types import SimpleNamespace
from typing import Any

from coverage.collector import Collector
from Cython import Coverage


class Tracer(Coverage.CythonModuleTracer):
    """One source file; which one is known when its first function is entered."""

    # Written in C.
    line_number_range = operator.attrgetter("f_lineno", "f_lineno")

    def has_dynamic_source_filename(self) -> bool:
        """Functions of other files have code objects, and tracers, of their own."""
        return False

    def source_filename(self) -> str:
        """The absolute path."""
        frame = SimpleNamespace(f_code=SimpleNamespace(co_filename=self.module_file))
        path: str = self.dynamic_source_filename(self.module_file, frame)
        return path


class Plugin(Coverage.Plugin):
    """Makes such tracers."""

    def file_tracer(self, filename: str) -> Any:
        """As Cython's."""
        tracer = super().file_tracer(filename)
        if tracer is not None:
            tracer.__class__ = Tracer
        return tracer

    def file_reporter(self, filename: str) -> Any:
        """As Cython's, which knows a .pxd only after a module that takes functions from it."""
        reporter = super().file_reporter(filename)
        if reporter is None and filename.endswith(".pxd"):
            self._find_c_source_files(os.path.dirname(filename), filename)
            reporter = super().file_reporter(filename)
        return reporter


def coverage_init(registry: Any, options: Any) -> None:
    """Where coverage begins."""
    # What is taken around each change of the data, against a change of context. There is one context; this is C.
    Collector.lock_data = Collector.unlock_data = bool  # type: ignore[assignment]
    plugin = Plugin()
    registry.add_configurer(plugin)
    registry.add_file_tracer(plugin)
