# SPDX-License-Identifier: MIT
"""The records of TCP, from what is received and held (runs, rx_queue) to the connection and its table (tcb, demux)."""
