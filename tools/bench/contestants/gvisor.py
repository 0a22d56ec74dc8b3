# SPDX-License-Identifier: MIT
"""gVisor's netstack as Debian packages it, under Go's HTTP server: see applications/netstack_files.go."""

from __future__ import annotations

from ustack.tools.bench.contestants.base import APT, HERE, version_of
from ustack.tools.bench.contestants.tap import OnTap
from ustack.tools.generators import run

SOURCES = "/usr/share/gocode"


class Gvisor(OnTap):
    """A compiler of 300 MB: `make bench` leaves it to who wants it."""

    name = "gvisor"
    title = "gVisor netstack, TAP"
    source = HERE / "applications" / "netstack_files.go"
    programs = ("go",)
    files = (f"{SOURCES}/src/gvisor.dev/gvisor/pkg/tcpip",)
    install = f"{APT} golang-go golang-gvisor-gvisor-dev"

    def build(self) -> tuple[str, ...]:
        """Build it from the packages alone. What Go keeps of it is where it always is: the next time is short."""
        self.version = version_of("dpkg-query", "-W", "-f", "${Version}", "golang-gvisor-gvisor-dev")
        program = self.work / self.plain_name
        go = ["env", f"GOPATH={SOURCES}", "GO111MODULE=off", "GOFLAGS=", "GOPROXY=off"]
        run([*go, "go", "build", "-o", str(program), str(self.source)], timeout_s=600)
        return (str(program),)


CONTESTANTS = [Gvisor]
