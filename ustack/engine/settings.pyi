from typing import NamedTuple

class Setting(NamedTuple):
    name: str
    default: int
    low: int
    high: int
    text: str

def settings() -> dict[str, Setting]: ...
def settings_text() -> str: ...
