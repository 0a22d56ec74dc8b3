from ustack.tools.fuzz.target import Target

class Segments(Target):
    def __init__(self) -> None: ...
