# SPDX-License-Identifier: MIT
def parse(packet: bytes, quoted: bool = False) -> dict[str, object] | int: ...
def emit(
    src: bytes,
    dst: bytes,
    *,
    tos: int,
    ttl: int,
    protocol: int,
    total_length: int,
    identification: int,
    fragment: int,
) -> bytes: ...
def pseudo_sum(src: bytes, dst: bytes, protocol: int, length: int) -> bytes: ...
