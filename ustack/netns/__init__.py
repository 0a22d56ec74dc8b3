# SPDX-License-Identifier: MIT
"""Network namespaces, links and the ingress drop, through pyroute2. Stands alone: imports nothing of ustack."""
