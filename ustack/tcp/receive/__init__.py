# SPDX-License-Identifier: MIT
"""The receiver's half: what is kept, for whom there is memory, and which blocks are selectively acknowledged."""
