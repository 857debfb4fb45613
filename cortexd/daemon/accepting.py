"""Taking connections from listening sockets, many in one turn.

Owns the listeners while they accept, and what happens when the process has no descriptors left.
Refuses to know what is done with a connection. `trio.serve_listeners` takes one connection in each
turn of the scheduler, which all others share: of two thousand that come at once, the last one would
wait for two thousand turns.
"""

import errno
import logging
import os
import socket
from collections.abc import Awaitable, Callable

import trio

log = logging.getLogger("cortexd.http")

Listener = trio.SocketListener | trio.SSLListener[trio.SocketStream]
Accepted = socket.socket | trio.SSLStream[trio.SocketStream]
Stream = trio.SocketStream | trio.SSLStream[trio.SocketStream]

_TURN_MAX = 64
_BREATH_SECONDS = 0.1
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})
_NO_LISTENER = frozenset({errno.EBADF, errno.EINVAL, errno.ENOTSOCK, errno.EFAULT})


async def accept(
    listener: Listener,
    serve: Callable[[Accepted], Awaitable[None]],
    connections: trio.Nursery,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Accept until cancelled, and close the listener then; each connection becomes a task.

    A plain connection comes as a socket, a TLS one as a stream that has not shaken hands.
    """
    if isinstance(listener, trio.SSLListener):

        async def secured(stream: trio.SSLStream[trio.SocketStream]) -> None:
            await serve(stream)

        task_status.started()
        await trio.serve_listeners(secured, [listener], handler_nursery=connections)
    else:
        async with listener:
            # Its own way to accept always ends the turn; another descriptor of it does not.
            with socket.socket(fileno=os.dup(listener.socket.fileno())) as own:
                own.setblocking(False)
                task_status.started()
                while True:
                    await trio.lowlevel.wait_readable(own)
                    await _accept_a_few(own, serve, connections)


async def _accept_a_few(
    listener: socket.socket,
    serve: Callable[[Accepted], Awaitable[None]],
    connections: trio.Nursery,
) -> None:
    for _ in range(_TURN_MAX):
        try:
            accepted, _ = listener.accept()
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno in _EXHAUSTED:
                log.warning("event=accept_failed error=%r", os.strerror(error.errno or 0))
                await trio.sleep(_BREATH_SECONDS)
                return
            if error.errno in _NO_LISTENER:
                raise
            continue  # this one was gone before it could be taken
        connections.start_soon(serve, accepted, name="connection")
