# SPDX-License-Identifier: MIT
"""Names of the states (RFC 9293 section 3.3.2) and of the reasons a connection ends for."""


def state_name(int state) -> str:
    """The RFC's spelling, with hyphens: 4 gives 'ESTABLISHED', 5 'FIN-WAIT-1'."""
    return tcp_state_t(state).name.replace("_", "-")


def reason_name(int reason) -> str:
    """Lower case, without the prefix: CLOSE_RESET gives 'reset'."""
    return close_reason_t(reason).name.removeprefix("CLOSE_").lower()
