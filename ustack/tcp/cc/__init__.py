# SPDX-License-Identifier: MIT
"""Congestion controls behind one table of operations (contract.pxd)."""
