# SPDX-License-Identifier: MIT
"""Benchmarks, comparisons and developer gates (installed as ustack.tools)."""
