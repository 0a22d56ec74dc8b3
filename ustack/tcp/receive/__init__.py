# SPDX-License-Identifier: MIT
"""The receiver's half: what is kept, how much may come, for whom there is memory,
and which blocks are selectively acknowledged."""
