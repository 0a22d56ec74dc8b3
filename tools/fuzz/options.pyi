from ustack.tools.fuzz.target import Target

class Options(Target):
    def __init__(self) -> None: ...
