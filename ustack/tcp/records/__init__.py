# SPDX-License-Identifier: MIT
"""The records of TCP: from what is received and held (runs, rx_queue) to the connection (tcb), its life, the table that
finds it (demux), its deadlines and the work list."""
