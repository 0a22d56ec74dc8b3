from ustack.link.device import Link

class InterfaceLink(Link):
    @property
    def ifname(self) -> str: ...
