# SPDX-License-Identifier: MIT
"""Floor 0: scalar types, counters, clock, timing wheel, seeded generator. Imports nothing of ustack."""
