# SPDX-License-Identifier: MIT
"""Congestion controls behind one table of operations (ops.pxd)."""
