# SPDX-License-Identifier: MIT
"""IPv4: input and output, ICMP, ARP. What both families share is beside it: records, neighbours."""
