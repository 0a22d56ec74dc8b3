# SPDX-License-Identifier: MIT
"""Compiled shims that show single records to this project's unit tests. Built in the source tree, not in a wheel."""
