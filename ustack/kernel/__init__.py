# SPDX-License-Identifier: MIT
"""The transport contract over the kernel's sockets: the same application, another stack."""
