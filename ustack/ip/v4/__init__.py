# SPDX-License-Identifier: MIT
"""IPv4: input and output, ICMP, ARP. What both families share is a floor below: records, neighbour, layer's contract."""
