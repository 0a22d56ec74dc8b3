# SPDX-License-Identifier: MIT
"""Floor 7: the HTTP server, an application of the engine (installed as ustack.server)."""
