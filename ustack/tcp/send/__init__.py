# SPDX-License-Identifier: MIT
"""What a connection sends: how much of it may go, one segment, and what is sent again. `output` decides the order."""
