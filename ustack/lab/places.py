# SPDX-License-Identifier: MIT
"""Where records and namespace names are kept: below /run, or, for who may not write there, in a directory of his own.

Root in a user namespace, an ordinary user with capabilities, and a container with a read-only /run have no /run to
write to. Theirs is $XDG_RUNTIME_DIR, or /tmp/ustack-UID; what is made there is seen by the same user alone.

Above: namespace, ownership. Below: nothing.
"""

import os
import stat
from pathlib import Path

RUN = Path("/run")


def directory(name: str) -> Path:
    """/run/NAME if it can be written to or made, else NAME in the caller's own directory. Makes nothing."""
    shared = RUN / name
    if os.access(shared if shared.exists() else RUN, os.W_OK | os.X_OK) or (shared.exists() and not shared.is_dir()):
        return shared
    return own() / name


def own() -> Path:
    """The caller's directory for what lasts until the next boot."""
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if runtime.startswith("/") and os.access(runtime, os.W_OK | os.X_OK) and os.stat(runtime).st_uid == os.geteuid():
        return Path(runtime) / "ustack"
    return Path(f"/tmp/ustack-{os.geteuid()}")


def make(place: Path) -> None:
    """Make a directory that `directory` has named, with what is above it.

    Raises OSError; PermissionError if the caller's own directory is another's, who could change what is in it.
    """
    mine = own()
    if mine in place.parents:
        mine.mkdir(mode=0o700, exist_ok=True)
        if not is_safe(place):
            raise PermissionError(13, "is not a directory of this user alone", str(mine))
    place.mkdir(mode=0o755, parents=True, exist_ok=True)


def is_safe(place: Path) -> bool:
    """False if another user may have put there what is in a directory that `directory` has named.

    Anybody can make /tmp/ustack-UID before its user does, with links in it to wherever he can write.
    """
    mine = own()
    if mine not in place.parents:
        return True
    try:
        found = mine.lstat()
    except FileNotFoundError:
        return True
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o022
