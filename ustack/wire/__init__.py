# SPDX-License-Identifier: MIT
"""Floor 1: bytes to fields and back, one file per protocol, the same verbs in each (parse, emit)."""
