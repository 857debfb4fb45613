"""A plain connection at its edges; what is not seen here is seen through the pool."""

from __future__ import annotations

import socket
import struct
from collections.abc import AsyncIterator

import pytest
import trio
import trio.testing

from cortexd.fleet.addresses import address_of
from cortexd.fleet.link import LinkBroken, PlainLink, connect


class Pair:
    """A link and the raw socket at its other end."""

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            ours = socket.create_connection(listener.getsockname())
            self.theirs, _ = listener.accept()
        ours.setblocking(False)
        self.link = PlainLink(ours)

    def reset(self) -> None:
        """Have the other end reset the connection."""
        self.theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.theirs.close()


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    pair = Pair()
    yield pair
    pair.link.close()
    pair.theirs.close()


async def test_a_connection_that_was_reset_is_not_quiet_and_breaks_whatever_is_tried(
    pair: Pair,
) -> None:
    pair.reset()
    assert not await pair.link.is_quiet()
    with pytest.raises(LinkBroken, match="connection reset by peer"):
        pair.link.send_now(b"x")


async def test_a_reset_is_told_by_every_way_of_receiving() -> None:
    for wait in (False, True):
        pair = Pair()
        pair.reset()
        with pytest.raises(LinkBroken, match="connection reset by peer"):
            _ = await pair.link.receive() if wait else pair.link.receive_now()
        pair.link.close()


async def test_closing_wakes_a_sender_that_waits(pair: Pair) -> None:
    async def send() -> None:
        with pytest.raises(LinkBroken, match="closed"):
            await pair.link.send(memoryview(bytes(50_000_000)))

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send, name="sender")
            await trio.testing.wait_all_tasks_blocked(0.01)
            pair.link.close()


async def test_an_ipv6_address_is_connected_to() -> None:
    try:
        listener = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError as error:
        pytest.skip(f"no IPv6 here: {error}")
    with listener:
        link = await connect(address_of(f"http://[::1]:{listener.getsockname()[1]}"), None)
        accepted, _ = listener.accept()
        assert link.send_now(b"x") is None
        assert accepted.recv(10) == b"x"
        accepted.close()
        link.close()


async def test_a_name_that_cannot_be_one_is_a_broken_connection() -> None:
    with pytest.raises(LinkBroken):
        await connect(address_of("http://.."), None)
