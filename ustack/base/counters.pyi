from typing import Any

# The enum of counters.pxd, one member for each event, in index order.
counter_t: Any

def counter_names() -> tuple[str, ...]: ...
