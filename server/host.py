# SPDX-License-Identifier: MIT
"""What a host is: the grammar of `uri-host [":" port]`, in Host and in request targets.

Pure. It looks nothing up, and knows no request. Read first: RFC 3986 section 3.2.2, RFC 9110 section 4.2.
Above: request.py, target.py. Below: nothing.
"""

import ipaddress
import re

# RFC 3986 section 3.2.2 lets a registered name be looked up in the DNS, whose labels are never empty (RFC 1034
# section 3.5; a final dot is the root's): "..", ".a" and "a..b" name nothing. Empty as a whole is another matter, see
# _check_host in request.py.
_LABEL = rb"(?:[A-Za-z0-9_~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})+"
_HOST = re.compile(rb"(?:\[([^\]]*)\]|" + _LABEL + rb"(?:\." + _LABEL + rb")*\.?)(?::[0-9]*)?")
_IP_FUTURE = re.compile(rb"[vV][0-9A-Fa-f]+\.[A-Za-z0-9._~!$&'()*+,;=:-]+")
_IPV6 = re.compile(rb"[0-9A-Fa-f:.]+")


def is_host(value: bytes) -> bool:
    """Is it a non-empty uri-host with an optional port?"""
    match = _HOST.fullmatch(value)
    if match is None:
        return False
    literal = match.group(1)
    if literal is None or _IP_FUTURE.fullmatch(literal):
        return True
    if not _IPV6.fullmatch(literal):
        return False
    try:
        ipaddress.IPv6Address(literal.decode("ascii"))
    except ValueError:
        return False
    return True
