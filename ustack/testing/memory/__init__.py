# SPDX-License-Identifier: MIT
"""The parts of memory_transport: its records, its downcalls, a client's end."""
