# SPDX-License-Identifier: MIT
"""Worlds in virtual time: stacks, a simulated wire between them, and one clock that a script moves."""
