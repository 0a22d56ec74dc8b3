def parsed(header: bytes) -> tuple[str, int]: ...
def emitted(
    linear_bytes: int,
    *,
    csum_start: int = 0,
    csum_offset: int = 0,
    gso_size: int = 0,
    gso_family: int = 0,
    shortened_to: int | None = None,
) -> bytes: ...
