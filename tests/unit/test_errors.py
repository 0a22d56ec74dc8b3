# SPDX-License-Identifier: MIT
"""Each way a connection ends has one exception, which is also the standard library's for it."""

import errno

import pytest

from ustack import errors
from ustack.application import close_reason_t, reason_name

KINDS = {
    "reset": (errors.ConnectionReset, ConnectionResetError),
    "refused": (errors.ConnectionRefused, ConnectionRefusedError),
    "timeout": (errors.ConnectionTimeout, TimeoutError),
    "keepalive": (errors.ConnectionTimeout, TimeoutError),
    "aborted": (errors.ConnectionAborted, ConnectionAbortedError),
    "no_memory": (errors.StackError, OSError),
    "net_unreachable": (errors.Unreachable, OSError),
    "host_unreachable": (errors.Unreachable, OSError),
    "protocol_unreachable": (errors.Unreachable, OSError),
    "source_route_failed": (errors.Unreachable, OSError),
    "host_down": (errors.Unreachable, OSError),
    "host_isolated": (errors.Unreachable, OSError),
    "net_prohibited": (errors.Unreachable, OSError),
    "prohibited": (errors.Unreachable, OSError),
    "time_exceeded": (errors.Unreachable, OSError),
    "parameter_problem": (errors.Unreachable, OSError),
}


@pytest.mark.parametrize("reason", KINDS)
def test_a_reason_has_its_exception(reason: str) -> None:
    error = errors.error_of(reason)
    ours, standard = KINDS[reason]
    assert type(error) is ours
    assert isinstance(error, standard)
    assert error.reason == reason


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        ("refused", errno.ECONNREFUSED),
        ("reset", errno.ECONNRESET),
        ("timeout", errno.ETIMEDOUT),
        ("keepalive", errno.ETIMEDOUT),
        ("net_unreachable", errno.ENETUNREACH),
        ("host_unreachable", errno.EHOSTUNREACH),
        ("host_down", errno.EHOSTDOWN),
        ("net_prohibited", errno.ENETUNREACH),
        ("prohibited", errno.EHOSTUNREACH),
        ("time_exceeded", errno.EHOSTUNREACH),
        ("protocol_unreachable", errno.ENOPROTOOPT),
        ("parameter_problem", errno.EPROTO),
    ],
)
def test_an_exception_carries_the_errno_of_linux(reason: str, code: int) -> None:
    assert errors.error_of(reason).errno == code


@pytest.mark.parametrize("reason", KINDS)
def test_every_reason_has_an_errno(reason: str) -> None:
    assert errors.error_of(reason).errno in errno.errorcode


@pytest.mark.parametrize("reason", KINDS)
def test_every_exception_is_a_stack_error_and_an_os_error(reason: str) -> None:
    with pytest.raises(errors.StackError) as raised:
        raise errors.error_of(reason)
    assert isinstance(raised.value, OSError)


@pytest.mark.parametrize("reason", KINDS)
def test_the_message_is_a_sentence_for_a_user(reason: str) -> None:
    message = str(errors.error_of(reason))
    assert " " in message
    assert "_" not in message


def test_every_reason_of_the_stack_but_a_normal_end_is_known() -> None:
    reasons = {reason_name(reason) for reason in close_reason_t}
    assert reasons - {"normal"} == KINDS.keys()


def test_an_unknown_reason_is_named_in_the_message() -> None:
    error = errors.error_of("gone_fishing")
    assert type(error) is errors.StackError
    assert "gone_fishing" in str(error)


@pytest.mark.parametrize("kind", [errors.AddressInUse, errors.Unreachable, errors.StackError])
def test_an_exception_carries_what_it_was_made_with(kind: type[errors.StackError]) -> None:
    error = kind("in_use", "the address is in use")
    assert (error.reason, str(error)) == ("in_use", "the address is in use")
