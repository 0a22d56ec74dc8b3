# SPDX-License-Identifier: MIT
"""Floor 2: packet I/O behind one table of operations (device.pxd)."""
