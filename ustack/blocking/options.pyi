from typing import NamedTuple

class SocketOption(NamedTuple):
    name: str
    level: str
    number: int
    unit: str
    low: int
    high: int
    on: str
    text: str

def options() -> dict[str, SocketOption]: ...
