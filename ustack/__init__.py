# SPDX-License-Identifier: MIT
"""A userspace TCP stack server over raw packet rings."""

__version__ = "0.1.0"
