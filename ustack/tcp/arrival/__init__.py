# SPDX-License-Identifier: MIT
"""Steps of SEGMENT ARRIVES that are not on every segment's way. `input` has the order."""
