# SPDX-License-Identifier: MIT
"""The two blocks that a pcapng file begins with: the section header and one interface. The packets' blocks are tee's.

Everything is in this machine's byte order; the section header's magic says which one that is.

Read first: draft-ietf-opsawg-pcapng sections 3.5 (options), 4.1 (section header), 4.2 (interface). Above: tee.
"""

import struct

SECTION_HEADER = 0x0A0D0D0A
BYTE_ORDER_MAGIC = 0x1A2B3C4D
UNKNOWN_SECTION_BYTES = -1
INTERFACE_DESCRIPTION = 1
LINKTYPE_ETHERNET = 1
SHB_USERAPPL = 4
IF_NAME = 2
IF_TSRESOL = 9
OPTION_VALUE_MAX = 65535


def file_header(interface_name: str) -> bytes:
    """A section header and one Ethernet interface, never cut, whose timestamps count nanoseconds.

    interface_name: the file keeps 65,535 bytes of it at most. Raises UnicodeEncodeError for a lone surrogate.
    """
    section = struct.pack("=IHHq", BYTE_ORDER_MAGIC, 1, 0, UNKNOWN_SECTION_BYTES)
    interface = struct.pack("=HHI", LINKTYPE_ETHERNET, 0, 0)
    nanoseconds = b"\x09"  # 10 to the power of -9
    return _block(SECTION_HEADER, section, (SHB_USERAPPL, b"ustack")) + _block(
        INTERFACE_DESCRIPTION, interface, (IF_NAME, interface_name.encode()), (IF_TSRESOL, nanoseconds)
    )


def _block(kind: int, body: bytes, *options: tuple[int, bytes]) -> bytes:
    """A block with its length before and behind, so that a file can be read backwards."""
    for code, whole in options:
        value = whole[:OPTION_VALUE_MAX]
        body += struct.pack("=HH", code, len(value)) + value + bytes(-len(value) % 4)
    body += bytes(4)  # opt_endofopt
    length = struct.pack("=I", len(body) + 12)
    return struct.pack("=I", kind) + length + body + length
