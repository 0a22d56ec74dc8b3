# SPDX-License-Identifier: MIT
"""`ustack serve --stack kernel:STRATEGY`: the same server on the kernel's sockets, so that only the stack differs.

No keeper: the kernel's addresses are there already. It opens the directory, the access log and the
listening socket, then becomes an ordinary user, as the other server does; what is opened again later is opened by that
user. As many descriptors as the process may have are asked for: each connection is one.

With kernel:prefork and kernel:reuseport several processes do this (workers). The first one opens the port before them,
so that what is wrong with it is said once: for prefork the socket that all take from; for reuseport one that nobody
can connect to, and that keeps the port from a second server, which would get a part of the connections unasked.

Above: serve. Below: serving, workers, kernel.
"""

import errno
import os
import resource
import socket
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

from ustack.cli.files import Files, Ourselves
from ustack.cli.live import Complaints, say
from ustack.cli.serve_options import PREFORK, REUSEPORT, WITH_WORKERS, Options, check_kernel
from ustack.cli.serving import Served, announce, become_unprivileged, finish, loop, plain_errors
from ustack.cli.signals import Interrupted, StopSignals, ending
from ustack.cli.workers import Workers
from ustack.lab import LabError, privilege

BACKLOG = 4096


def run_kernel(options: Options) -> int:
    """Serve until a stop signal; return the exit status."""
    check_kernel(options)
    # What an import's own callbacks raise is lost: nothing is left to import when a signal can raise Interrupted.
    import traceback  # noqa: F401

    import ustack.kernel.transport
    import ustack.server.http  # noqa: F401

    with StopSignals() as signals:
        try:
            with ending(signals):
                return (_serve_all if options.strategy in WITH_WORKERS else _serve)(options, signals)
        except Interrupted:
            return 0


def _serve_all(options: Options, signals: StopSignals) -> int:
    """Several processes, and this one to look after them, as the same user."""
    with _open_port(options) as port:
        workers = Workers(options.workers or len(os.sched_getaffinity(0)), partial(_serve, options, signals, port))
        workers.start()
        try:
            if options.strategy == PREFORK:
                port.close()  # else clients could connect for as long as nobody serves them
            return _look_after(options, signals, workers)
        except BaseException:  # a stop signal among it, before it is passed on
            workers.end()
            raise


def _look_after(options: Options, signals: StopSignals, workers: Workers) -> int:
    user = privilege.choose_user(options.user, options.directory.stat())
    privilege.give_up(user)
    announce(options, user, "")
    return workers.wait(signals)


def _open_port(options: Options) -> socket.socket:
    """The address and port, before there are workers. Raises LabError."""
    port = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        port.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        port.bind((options.listening, options.port))
        if options.strategy == PREFORK:
            port.listen(BACKLOG)
        else:
            port.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)  # from here on, for workers of this user
    except OSError as error:
        port.close()
        if error.errno == errno.EADDRINUSE:
            raise LabError(f"cannot serve: port {options.port} is in use") from None
        raise LabError(f"cannot serve: {options.listening}, port {options.port}: {error.strerror}") from None
    return port


def _serve(
    options: Options,
    signals: StopSignals,
    port: socket.socket | None = None,
    ready: Callable[[], None] | None = None,
) -> int:
    """port: what _open_port has opened. ready: who is told that this process serves, instead of everybody."""
    complaints = Complaints()
    with ExitStack() as resources:
        served = plain_errors(lambda: _open(options, resources, port))
        transport, server = served.stack, served.server
        signals.stop = transport.stop
        if ready is not None:
            ready()
        elif not signals.received:
            announce(options, served.user, "")
        try:
            loop(served, signals, complaints, json_stats=options.json_stats)
            served.listener.close()
            transport.finish_children()
            finish(served, signals, options.linger)
        except OSError as error:
            say(f"the kernel's sockets failed: {error.strerror or error}")
            return 1
        complaints.look(transport, server)
    return 0


def _open(options: Options, resources: ExitStack, port: socket.socket | None) -> Served:
    """Everything that takes privilege first; then none is left."""
    from ustack.kernel.transport import KernelTransport
    from ustack.server.http import HttpServer

    _raise_limit()
    opener = Ourselves(options.directory, options.access_log)
    files = resources.enter_context(Files(opener, options.directory, options.access_log))
    server = resources.enter_context(HttpServer(f"/proc/self/fd/{files.directory}", access_log=files.log))
    strategy = "epoll-lt" if options.strategy in WITH_WORKERS else options.strategy
    spin_ns = 1000 * (options.spin or 0)
    transport = resources.enter_context(
        KernelTransport(
            strategy,
            cc=options.cc,
            reuse_port=options.strategy == REUSEPORT,
            spin_ns=spin_ns,
            cork=options.cork,
            sendfile=options.sendfile,
            zerocopy=options.zerocopy,
        )
    )
    if port is not None and options.strategy == PREFORK:
        listener = transport.listen_shared(port.fileno(), application=server, backlog=BACKLOG)
        port.close()
    else:
        address = _address(options.listening)
        listener = transport.listen(options.port, application=server, address=address, backlog=BACKLOG)
    user = become_unprivileged(options, files.directory)
    return Served(transport, server, listener, files, user)


def _address(text: str) -> str | None:
    return None if text == "0.0.0.0" else text


def _raise_limit() -> None:
    """As many descriptors as may be had without privilege."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
