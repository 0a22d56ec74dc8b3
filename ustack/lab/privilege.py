# SPDX-License-Identifier: MIT
"""Capabilities and users: what is missing before the work begins, and giving up what is not needed any more.

    require      the capabilities that some work needs, or one line
    drop         some capabilities, in the calling thread
    choose_user  whom a server becomes
    give_up      everything: the user, every capability of every set, and any way back

Read first: capabilities(7), credentials(7), user_namespaces(7). Above: lab, cli. Below: libc.
"""

import errno
import os
import struct
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from ustack.lab import libc
from ustack.lab.namespace import LabError

CAPABILITIES = {"CAP_NET_ADMIN": 12, "CAP_NET_RAW": 13, "CAP_SYS_ADMIN": 21}
CAP_SETGID, CAP_SETUID = 6, 7
PR_CAPBSET_DROP = 24
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_CLEAR_ALL = 4
NOBODY = 65534


@dataclass(frozen=True)
class User:
    """Whom to become. uid None: stay who we are."""

    uid: int | None
    gid: int | None
    name: str


def effective() -> set[str]:
    """Those of CAPABILITIES that the calling thread has now."""
    bits = _effective_bits()
    return {name for name, bit in CAPABILITIES.items() if bits >> bit & 1}


def require(what: str, names: Iterable[str] = CAPABILITIES) -> None:
    """Raise LabError, naming what is missing, unless the thread has all of `names`."""
    missing = sorted(set(names) - effective())
    if missing:
        raise LabError(f"{what} needs root, or {', '.join(missing)}: run it with sudo")


def drop(names: Iterable[str] = CAPABILITIES) -> None:
    """Give capabilities up for good, in the calling thread and those it will start; a new program cannot regain them.

    Open descriptors keep working: an AF_PACKET ring needs no capability once it is bound.
    """
    names = list(names)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1)
    for name in names:
        with suppress(PermissionError):  # without CAP_SETPCAP; no_new_privs bars a new program from regaining anything
            libc.prctl(PR_CAPBSET_DROP, CAPABILITIES[name])
    keep = ~sum(1 << CAPABILITIES[name] for name in names)
    sets = struct.unpack("=6I", libc.capget())
    libc.capset(
        struct.pack(
            "=6I",
            *(word & (keep >> shift) & 0xFFFFFFFF for word, shift in zip(sets, (0, 0, 0, 32, 32, 32), strict=True)),
        )
    )


def choose_user(wanted: str | None, directory: os.stat_result) -> User:
    """Whom a server becomes that has opened `directory`.

    wanted: NAME or UID, with :GROUP or :GID behind it if need be. None: the directory's owner, or nobody if that is
    root; whoever cannot change the user (not root, or in a user namespace that has no other) stays what he is.

    The group is the user's own or the given one, and no other is kept. Raises LabError if `wanted` cannot be had.
    """
    if wanted is not None:
        user = _named(wanted)
        reason = "" if (user.uid, user.gid) == (os.geteuid(), os.getegid()) else cannot_become(user)
        if reason:
            raise LabError(f"--user {wanted}: {reason}")
        return user
    uid = directory.st_uid if directory.st_uid != 0 else NOBODY
    user = _numbered(uid, directory.st_gid)
    return User(None, None, _numbered(os.geteuid(), os.getegid()).name) if cannot_become(user) else user


def give_up(user: User) -> None:
    """Become `user`, without capabilities in any set, for good: no program that is started later regains one.

    Open descriptors keep working. Call it while there is one thread. Raises LabError if something is left.
    """
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1)
    for bit in count():
        try:
            libc.prctl(PR_CAPBSET_DROP, bit)
        except OSError as error:
            # EINVAL: there are no more. EPERM: without CAP_SETPCAP; no_new_privs bars the way as well.
            if error.errno in (errno.EINVAL, errno.EPERM):
                break
            raise
    with suppress(OSError):  # before Linux 4.3 there are none
        libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    if user.uid is not None and user.gid is not None:
        if _effective_bits() >> CAP_SETGID & 1 and not _groups_stay():  # they do: it stays who it is (choose_user)
            os.setgroups([])
        os.setresgid(user.gid, user.gid, user.gid)
        os.setresuid(user.uid, user.uid, user.uid)
    libc.capset(bytes(24))
    if any(libc.capget()) or (user.uid is not None and os.getresuid() != (user.uid,) * 3):
        raise LabError("cannot give up root: this kernel lets something be kept")


def _effective_bits() -> int:
    low, _, _, high, _, _ = struct.unpack("=6I", libc.capget())
    return int(low | high << 32)


def _named(wanted: str) -> User:
    import grp
    import pwd

    name, colon, group = wanted.partition(":")
    try:
        user = _numbered(int(name), None) if name.isdecimal() else _numbered(pwd.getpwnam(name).pw_uid, None)
        if not colon:
            return user
        return User(user.uid, int(group) if group.isdecimal() else grp.getgrnam(group).gr_gid, user.name)
    except KeyError:
        raise LabError(f"--user {wanted}: there is no such user or group") from None
    except (ValueError, OverflowError):
        raise LabError(f"--user {wanted}: not a user, or USER:GROUP") from None


def _numbered(uid: int, gid: int | None) -> User:
    """A user by number. gid: the group of one who is in no list of users, if it is not root's."""
    import pwd

    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        return User(uid, gid or (uid if gid is None else NOBODY), str(uid))
    return User(uid, entry.pw_gid, entry.pw_name)


def cannot_become(user: User) -> str:
    """Why this process cannot become `user`; "" if it can."""
    bits = _effective_bits()
    if not (bits >> CAP_SETUID & 1 and bits >> CAP_SETGID & 1):
        return "it takes root, or CAP_SETUID and CAP_SETGID, to become another user"
    assert user.uid is not None
    assert user.gid is not None
    for identity, kind in ((user.uid, "uid"), (user.gid, "gid")):
        with suppress(FileNotFoundError):
            ranges = [line.split() for line in Path(f"/proc/self/{kind}_map").read_text().splitlines()]
            if not any(int(first) <= identity < int(first) + int(length) for first, _, length in ranges):
                return f"this user namespace has no {kind} {identity}"
    return "this user namespace does not let groups be given up" if _groups_stay() else ""


def _groups_stay() -> bool:
    """True in a user namespace that its maker could not give the right to change groups (user_namespaces(7))."""
    with suppress(FileNotFoundError):
        return Path("/proc/self/setgroups").read_text().strip() == "deny"
    return False
