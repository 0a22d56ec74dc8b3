# SPDX-License-Identifier: MIT
"""Floor 5: what drives link, ip and tcp, calls the application, and is owned by one thread."""
