# SPDX-License-Identifier: MIT
"""Network namespaces, veth, TAP and the ingress drop, through pyroute2. Stands alone: imports nothing else of ustack.

Example, made now and removed at the end, also if this process is killed:

    with Lab("demo") as lab, lab.inside():
        link = PacketMmapLink(lab.ifname)
"""

from ustack.lab import ingress, links, namespace, privilege
from ustack.lab.keeper import Lab
from ustack.lab.making import Made, Plan, down, find, labs, sweep, up
from ustack.lab.namespace import InUseError, LabError, inside

__all__ = [
    "InUseError",
    "Lab",
    "LabError",
    "Made",
    "Plan",
    "down",
    "find",
    "ingress",
    "inside",
    "labs",
    "links",
    "namespace",
    "privilege",
    "sweep",
    "up",
]
