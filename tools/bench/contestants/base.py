# SPDX-License-Identifier: MIT
"""What a contestant is: a server that is started on a folder in a pair of namespaces, pinned, checked, and stopped.

A subclass gives a name, what it needs, how that is installed, and a command. It is checked before it is measured: every
file that experiments ask for arrives with the right status, length and hash. What goes wrong with one is its own
matter: `Absent` and LoadError become the text of its cells, and the others go on.

It must not: measure. Above: the other files of this folder, runner. Below: tools.servers (processes, namespaces).
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from ustack.tools.bench.processor import family
from ustack.tools.generators import LoadError, inside, run
from ustack.tools.pair import Pair, veth_pair
from ustack.tools.servers import Server

CONGESTION_CONTROL = "cubic"
ALLOWED = Path("/proc/sys/net/ipv4/tcp_allowed_congestion_control")
HERE = Path(__file__).parent
APT = "apt-get install --no-install-recommends"
PIP = "pip install 'ustack[bench]'"
USERSPACE = ("ustack", "stack")  # kinds whose connections are none of the kernel's sockets


class Absent(LoadError):
    """A contestant cannot take part: what it needs is not installed."""


class Contestant(Server):
    """One server. Class attributes are what a subclass says about itself; start(), check(), stop() are for all.

    main: takes part in every experiment, not only in those for everybody. unasked: takes part if it is not named.
    special: takes part where an experiment is about it alone. at_most: the greatest number of connections
    that it can be asked to hold, None if it sets none; the reason is in `why_at_most`.
    """

    title = ""
    kind = "server"
    main = False
    unasked = True
    special = False
    programs: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    install = ""
    at_most: int | None = None
    why_at_most = ""
    configuration = ""  # what it was given to read, for the report

    @property
    def plain_name(self) -> str:
        """For files and namespaces."""
        return self.name.replace(":", "-").replace("+", "-")

    @property
    def server_netns(self) -> str:
        """The server's end of the link is there."""
        return self.pair.server_netns

    def missing(self) -> str:
        """What is not installed, with how it would be; "" if nothing is."""
        lacking = [name for name in self.programs if shutil.which(name) is None]
        lacking += [name for name in self.modules if importlib.util.find_spec(name) is None]
        lacking += [name for name in self.files if not Path(name).exists()]
        return f"{', '.join(lacking)} not installed: {self.install}" if lacking else ""

    def start(self) -> None:
        """As every server; raises Absent before anything is made where something is missing."""
        if said := self.missing():
            raise Absent(said)
        super().start()
        set_congestion_control(self.client_netns)

    def prepare(self) -> None:
        """Make a pair of namespaces, whose names are as plain as they have to be."""
        self.use(self.stack.enter_context(veth_pair(self.plain_name)))

    def use(self, pair: Pair) -> None:
        """Serve at the far end of a pair, with the congestion control of all."""
        super().use(pair)
        set_congestion_control(pair.server_netns)

    def start_again(self) -> None:
        """After it has died, or was left in a state that nobody can know."""
        self.stop()
        self.start()

    def stop(self) -> None:
        """Those too that it has started: workers whose first process was killed."""
        with ExitStack() as stack:
            started = []
            for pid in self.pids():
                with suppress(OSError):
                    started.append(os.pidfd_open(pid))
                    stack.callback(os.close, started[-1])
            try:
                super().stop()
            finally:
                for left in started:
                    with suppress(ProcessLookupError):
                        signal.pidfd_send_signal(left, signal.SIGKILL)

    def pids(self) -> list[int]:
        """Its processes; those it has left, where the first has ended and been waited for. While one of its session
        lives nobody else gets that number: if somebody has it, none does, and who has it is a stranger."""
        if self.process is None:
            return []
        found = family(self.process.pid)
        return [] if self.process.returncode is not None and self.process.pid in found else found

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """While the block lasts none of its processes runs, and none takes the servers' core from who is measured.

        A shell lets them go on, at the end of the block or of this process, however it ends: who is stopped would never
        hear that his parent has died."""
        pids = self.pids()
        words = ["sh", "-c", 'read -r _; kill -CONT "$@"', "sh", *map(str, pids)]
        with subprocess.Popen(words, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True):
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGSTOP)
            yield

    def configured(self, template: str, suffix: str = "conf", **words: str) -> Path:
        """Write a configuration from a template here: @ADDRESS@, @SITE@, @DIRECTORY@ and `words` are filled in."""
        directory = self.work / self.plain_name
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir()
        text = (HERE / template).read_text(encoding="utf-8")
        address = self.pair.server_address
        for word, value in {"ADDRESS": address, "SITE": str(self.site), "DIRECTORY": str(directory), **words}.items():
            text = text.replace(f"@{word}@", value)
        self.configuration = text
        written = directory / f"{self.name}.{suffix}"
        written.write_text(text, encoding="utf-8")
        return written

    def pinned(self, *command: str) -> list[str]:
        """A command in the server's namespace, on the servers' core."""
        return [*inside(self.pair.server_netns, self.core), *command]

    def check_files(self, files: dict[str, str]) -> None:
        """Fetch files and compare with their SHA-256: a fast wrong answer is not worth a measurement."""
        for path, wanted in files.items():
            self.check_file(path, wanted)

    def check_file(self, path: str, wanted: str) -> None:
        """One of them. Raises LoadError."""
        fetched = self.work / f"fetched-{self.name}"
        words = "%{http_code} %{size_download}"
        try:
            command = [*inside(self.client_netns), "curl", "-s", "--max-time", "20", "-o", str(fetched), "-w", words]
            status, size = run([*command, self.url + path], timeout_s=25).split()
            if status != "200":
                raise LoadError(f"{path}: status {status}")
            if hashlib.sha256(fetched.read_bytes() if int(size) else b"").hexdigest() != wanted:
                raise LoadError(f"{path} arrived changed ({size} bytes)")
        finally:
            fetched.unlink(missing_ok=True)

    def describe(self) -> dict[str, object]:
        """What a reader of its figures wants to know."""
        return {
            "title": self.title or self.name,
            "kind": self.kind,
            "version": self.version,
            "command": shlex.join(self.command()),
            "configuration": self.configuration,
            "install": self.install,
        }


class Script(Contestant):
    """A server in Python, run by this interpreter: one of the files in `applications`."""

    kind = "application"
    script = ""
    install = PIP

    def prepare(self) -> None:
        """Ask what versions it is made of."""
        super().prepare()
        self.version = ", ".join(f"{name} {version_of_module(name)}" for name in self.modules)
        self.configuration = (HERE / "applications" / self.script).read_text(encoding="utf-8")

    def command(self) -> list[str]:
        """It takes the folder and the address."""
        program = str(HERE / "applications" / self.script)
        return self.pinned(sys.executable, program, str(self.site), self.pair.server_address, "80")


def set_congestion_control(netns: str, name: str = CONGESTION_CONTROL) -> None:
    """Of the kernel's sockets in a namespace. Raises LoadError where the kernel does not have it."""
    try:
        run([*inside(netns), "sh", "-c", f"echo {name} > /proc/sys/net/ipv4/tcp_congestion_control"], timeout_s=10)
    except LoadError:
        raise LoadError(f"the kernel does not let a namespace have congestion control {name}") from None


@contextmanager
def congestion_control_allowed(name: str = CONGESTION_CONTROL) -> Iterator[None]:
    """While the block lasts, namespaces may choose this control: the kernel lets them have only those that the machine
    itself names in tcp_allowed_congestion_control. Nothing changes for anybody else. Does nothing where it cannot be
    done: then set_congestion_control() says so for each contestant that needs it."""
    before = None
    with suppress(OSError):
        before = ALLOWED.read_text(encoding="ascii")
        if name not in before.split():
            ALLOWED.write_text(f"{before.strip()} {name}", encoding="ascii")
        else:
            before = None
    try:
        yield
    finally:
        if before is not None:
            with suppress(OSError):
                ALLOWED.write_text(before, encoding="ascii")


def version_of(*command: str) -> str:
    """The first line of what a program says about its version; "" if it says nothing."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return next(iter((done.stdout + done.stderr).strip().splitlines()), "")


def version_of_module(name: str) -> str:
    """Of an installed package."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(name)
    except PackageNotFoundError:
        return ""
