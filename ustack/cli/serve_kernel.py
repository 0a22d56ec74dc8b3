# SPDX-License-Identifier: MIT
"""`ustack serve --stack kernel:STRATEGY`: the same server on the kernel's sockets, so that only the stack differs.

No keeper: the kernel's addresses are there already. It opens the directory, the access log and the
listening socket, then becomes an ordinary user, as the other server does; what is opened again later is opened by that
user. As many descriptors as the process may have are asked for: each connection is one.

With kernel:reuseport several processes do this (workers). Above: serve. Below: serving, workers, kernel.
"""

import os
import resource
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

from ustack.cli.files import Files, Ourselves
from ustack.cli.live import Complaints, say
from ustack.cli.serve_options import DEFAULT_LISTEN, REUSEPORT, Options, check_kernel
from ustack.cli.serving import Served, announce, become_unprivileged, finish, loop, plain_errors
from ustack.cli.signals import Interrupted, StopSignals, ending
from ustack.cli.workers import Workers
from ustack.lab import privilege


def run_kernel(options: Options) -> int:
    """Serve until a stop signal; return the exit status."""
    check_kernel(options)
    with StopSignals() as signals:
        try:
            with ending(signals):
                return _serve_all(options, signals) if options.strategy == REUSEPORT else _serve(options, signals)
        except Interrupted:
            return 0


def _serve_all(options: Options, signals: StopSignals) -> int:
    """Several processes, and this one to look after them, as the same user."""
    workers = Workers(options.workers or len(os.sched_getaffinity(0)), partial(_serve, options, signals))
    workers.start()
    user = privilege.choose_user(options.user, options.directory.stat())
    privilege.give_up(user)
    announce(options, user, "")
    return workers.wait(signals)


def _serve(options: Options, signals: StopSignals, ready: Callable[[], None] | None = None) -> int:
    """ready: who is told that this process serves, instead of everybody."""
    complaints = Complaints()
    with ExitStack() as resources:
        served = plain_errors(lambda: _open(options, resources))
        transport, server = served.stack, served.server
        signals.stop = transport.stop
        if ready is not None:
            ready()
        elif not signals.received:
            announce(options, served.user, "")
        try:
            loop(served, signals, complaints, json_stats=options.json_stats)
            served.listener.close()
            finish(transport, server, signals, options.linger)
        except OSError as error:
            say(f"the kernel's sockets failed: {error.strerror or error}")
            return 1
        complaints.look(transport, server)
    return 0


def _open(options: Options, resources: ExitStack) -> Served:
    """Everything that takes privilege first; then none is left."""
    from ustack.kernel.transport import KernelTransport
    from ustack.server.http import HttpServer

    _raise_limit()
    opener = Ourselves(options.directory, options.access_log)
    files = resources.enter_context(Files(opener, options.directory, options.access_log))
    server = resources.enter_context(HttpServer(f"/proc/self/fd/{files.directory}", access_log=files.log))
    shared = options.strategy == REUSEPORT
    strategy = "epoll-lt" if shared else options.strategy
    transport = resources.enter_context(KernelTransport(strategy, cc=options.cc, reuse_port=shared))
    listener = transport.listen(
        options.port, application=server, address=_address(options.listen or DEFAULT_LISTEN), backlog=4096
    )
    user = become_unprivileged(options, files.directory)
    return Served(transport, server, listener, files, user)


def _address(text: str) -> str | None:
    return None if text == "0.0.0.0" else text


def _raise_limit() -> None:
    """As many descriptors as may be had without privilege."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
