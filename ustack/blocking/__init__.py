# SPDX-License-Identifier: MIT
"""Floor 6: the Python face that waits: a Stack on a link, its listeners and connections."""
