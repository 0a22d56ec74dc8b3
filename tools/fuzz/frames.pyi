from ustack.tools.fuzz.target import Target

class Frames(Target):
    def __init__(self) -> None: ...
