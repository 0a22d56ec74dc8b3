# SPDX-License-Identifier: MIT
"""Floor 3: Ethernet, ARP, IPv4 and ICMP: frames to packets and back."""
