"""Noticing that clients have left: by one task for all plain connections, or one for a request.

Owns an epoll set in which only hang-ups are reported, so that watching a request costs nothing
until its client leaves, but for a look at each connection once a second. Refuses to know what ends
then. A TLS connection has to be read to be watched, and an ASGI server to be asked: there a task
waits beside the request.
"""

import contextlib
import select
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol

import trio

from cortexd.gateway.exchange import End

_SWEEP_SECONDS = 1
_EVENTS = select.EPOLLRDHUP | select.EPOLLET  # EPOLLHUP and EPOLLERR come unasked


class Peer(Protocol):
    """One plain connection."""

    def has_left(self) -> None:
        """The client has hung up, or has shut down its side."""

    def read_ahead(self) -> None:
        """If it is being served, take in what waits in the kernel: a hang-up is behind it."""


class HangUps:
    """All plain connections of one listener. `run` it beside them."""

    def __init__(self) -> None:
        """Nobody is watched before `run`."""
        self._epoll: select.epoll | None = None
        self._peers: dict[int, Peer] = {}

    @property
    def is_running(self) -> bool:
        """Whether hang-ups are being noticed."""
        return self._epoll is not None

    def add(self, descriptor: int, peer: Peer) -> None:
        """Notice when the other side of this connection hangs up."""
        if self._epoll is not None:
            self._epoll.register(descriptor, _EVENTS)
            self._peers[descriptor] = peer

    def forget(self, descriptor: int, peer: Peer) -> None:
        """The connection is done with; its descriptor may be closed already, and another's."""
        if self._peers.get(descriptor) is peer:
            del self._peers[descriptor]
            with contextlib.suppress(OSError):  # closed: the kernel has forgotten it
                assert self._epoll is not None, "somebody was added"
                self._epoll.unregister(descriptor)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Tell every peer that has left, until cancelled.

        A hang-up behind bytes that nobody reads may not be seen by the kernel, when they fill its
        buffer; so those that are being served are read from once a second.
        """
        with select.epoll() as self._epoll:
            try:
                task_status.started()
                sweep_at = trio.current_time() + _SWEEP_SECONDS
                while True:
                    with trio.move_on_at(sweep_at):
                        await trio.lowlevel.wait_readable(self._epoll.fileno())
                    for descriptor, _ in self._epoll.poll(0):
                        left = self._peers.get(descriptor)
                        if left is not None:
                            left.has_left()
                    if trio.current_time() >= sweep_at:
                        for peer in tuple(self._peers.values()):
                            peer.read_ahead()
                        sweep_at = trio.current_time() + _SWEEP_SECONDS
            finally:
                self._epoll = None
                self._peers.clear()


@contextlib.asynccontextmanager
async def watched_by_a_task(
    gone: Callable[[], Awaitable[None]], hung_up: Callable[[], None]
) -> AsyncIterator[End]:
    """While this is entered: when `gone` returns, call `hung_up` and end what is being done. So
    does what this gives when it is called.
    """
    async with trio.open_nursery() as nursery:

        async def watch() -> None:
            await gone()
            hung_up()
            end("the client hung up")

        def end(reason: str) -> None:
            nursery.cancel_scope.cancel(reason=reason)

        nursery.start_soon(watch, name="hang-up watch")
        yield end
        nursery.cancel_scope.cancel(reason="answered")
