# SPDX-License-Identifier: MIT
"""Reads the structs of the stack, changes nothing: counters, sizes, snapshots."""
