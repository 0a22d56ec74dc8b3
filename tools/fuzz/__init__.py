# SPDX-License-Identifier: MIT
"""Coverage-guided fuzzing of the stack, the server and the simulator's files: see __main__.py.

Each target takes bytes for something (frames, a script of segments, options, an HTTP conversation, a scenario), runs it
on virtual time and raises AssertionError for what must not be. `ustack.tools.fuzz` belongs to this project's own tests:
it is built in the source tree and left out of a wheel.
"""
