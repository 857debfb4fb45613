"""Hang-ups are told at once, to the right connection, and without reading."""

import contextlib
import socket
from collections.abc import AsyncIterator

import trio
import trio.testing

from cortexd.gateway.hang_ups import HangUps


class Listening:
    """A connection's peer that notes what it is told."""

    def __init__(self) -> None:
        self.left = trio.Event()
        self.reads = 0

    def has_left(self) -> None:
        """Note it."""
        self.left.set()

    def read_ahead(self) -> None:
        """Count it."""
        self.reads += 1


@contextlib.asynccontextmanager
async def running() -> AsyncIterator[HangUps]:
    """Hang-ups that are noticed until this is left."""
    hang_ups = HangUps()
    async with trio.open_nursery() as nursery:
        await nursery.start(hang_ups.run)
        with trio.fail_after(5):
            yield hang_ups
        nursery.cancel_scope.cancel()
    assert not hang_ups.is_running


async def test_a_peer_hears_of_a_close_and_of_a_shutdown_and_of_nothing_else() -> None:
    async with running() as hang_ups:
        for closes in (True, False):
            here, there = socket.socketpair()
            with here, there:
                peer = Listening()
                hang_ups.add(here.fileno(), peer)
                there.send(b"bytes that nobody reads")
                await trio.testing.wait_all_tasks_blocked()
                assert not peer.left.is_set()
                if closes:
                    there.close()
                else:
                    there.shutdown(socket.SHUT_WR)
                await peer.left.wait()
                assert peer.reads == 0
                hang_ups.forget(here.fileno(), peer)


async def test_a_peer_that_is_forgotten_hears_nothing() -> None:
    async with running() as hang_ups:
        here, there = socket.socketpair()
        with here, there:
            peer = Listening()
            hang_ups.add(here.fileno(), peer)
            hang_ups.forget(here.fileno(), peer)
            there.close()
            await trio.testing.wait_all_tasks_blocked()
            assert not peer.left.is_set()


async def test_a_descriptor_that_is_used_again_belongs_to_the_new_connection() -> None:
    """The old connection is closed first and forgotten later; another may have come between."""
    async with running() as hang_ups:
        first, first_there = socket.socketpair()
        old, new = Listening(), Listening()
        number = first.fileno()
        hang_ups.add(number, old)
        first.close()
        second, second_there = socket.socketpair()
        with first_there, second, second_there:
            assert second.fileno() == number, "the kernel gives the lowest one that is free"
            hang_ups.add(number, new)
            hang_ups.forget(number, old)
            second_there.close()
            await new.left.wait()
            assert not old.left.is_set()
            hang_ups.forget(number, new)


async def test_peers_are_had_read_once_in_a_while(
    autojump_clock: trio.testing.MockClock,
) -> None:
    hang_ups, peer = HangUps(), Listening()
    here, there = socket.socketpair()
    with here, there:
        async with trio.open_nursery() as nursery:
            await nursery.start(hang_ups.run)
            hang_ups.add(here.fileno(), peer)
            with trio.move_on_after(3.5):
                await trio.sleep_forever()
            nursery.cancel_scope.cancel()
    assert peer.reads == 3


async def test_peers_are_had_read_even_if_others_hang_up_all_the_time(
    autojump_clock: trio.testing.MockClock,
) -> None:
    hang_ups, peer = HangUps(), Listening()
    watched, kept = socket.socketpair()
    async with trio.open_nursery() as nursery:
        await nursery.start(hang_ups.run)
        hang_ups.add(watched.fileno(), peer)
        for _ in range(7):
            here, there = socket.socketpair()
            with here, there:
                other = Listening()
                hang_ups.add(here.fileno(), other)
                there.close()
                await other.left.wait()
                hang_ups.forget(here.fileno(), other)
            with trio.move_on_after(0.5):
                await trio.sleep_forever()
        nursery.cancel_scope.cancel()
    watched.close()
    kept.close()
    assert peer.reads == 3
