# SPDX-License-Identifier: MIT
"""Floor 1: where bytes live: frame views, slab pools, lent buffers, receive chunks."""
