# SPDX-License-Identifier: MIT
"""The kernel's sockets through io_uring(7): requests and their completions instead of readiness."""
