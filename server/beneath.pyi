# SPDX-License-Identifier: MIT
"""Types of beneath.pyx."""

def open_beneath(directory_fd: int, path: bytes, flags: int) -> int: ...
