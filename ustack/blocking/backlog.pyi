from ustack.blocking.watched import Watched

class Backlog(Watched):
    @property
    def lost(self) -> int: ...
