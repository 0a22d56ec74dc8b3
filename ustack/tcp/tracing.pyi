FORMAT: str
FIELDS: tuple[str, ...]
EVENTS: dict[int, str]
CAUSES: dict[int, str]
REPAIRS: dict[int, str]
STATES: dict[int, str]
REASONS: dict[int, str]
CONNECTIONS_MAX: int
