"""Answers that are passed on a piece at a time: by one task for all, or each by its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing

import pytest
import trio

from cortexd.deadlines import Deadlines
from cortexd.fleet.pool import NeuronBroke, NeuronSilent, Pool
from tests.fleet.scripted import CHUNKED_HEAD, Peer, answering, ask, scripted, whole

PIECE = b"1\r\nx\r\n"
END = b"0\r\n\r\n"


@pytest.fixture(params=[True, False], ids=["pumped", "by its own task"])
async def pool(request: pytest.FixtureRequest, deadlines: Deadlines) -> AsyncIterator[Pool]:
    """A pool whose pump runs, and one whose does not: nobody can tell the difference."""
    async with aclosing(Pool(deadlines, 3)) as pool, trio.open_nursery() as nursery:
        if request.param:
            await nursery.start(pool.pump.run)
        yield pool
        nursery.cancel_scope.cancel()


@pytest.fixture
async def pumping(deadlines: Deadlines) -> AsyncIterator[Pool]:
    """A pool whose pump runs."""
    async with aclosing(Pool(deadlines, 3)) as pool, trio.open_nursery() as nursery:
        await nursery.start(pool.pump.run)
        yield pool
        nursery.cancel_scope.cancel()


class Taker:
    """Takes pieces, and answers as it is told."""

    def __init__(self, wants_more: Callable[[bytes], bool] = lambda _: True) -> None:
        self.taken: list[bytes] = []
        self.took = trio.Event()
        self._wants_more = wants_more

    def __call__(self, data: bytes) -> bool:
        self.taken.append(data)
        self.took.set()
        return self._wants_more(data)

    async def next(self) -> None:
        """Wait for the next piece."""
        await self.took.wait()
        self.took = trio.Event()


async def sending(peer: Peer, *pieces: bytes) -> None:
    """One packet after the other, each of which finds its reader asleep."""
    await peer.request()
    for piece in (CHUNKED_HEAD, *pieces):
        await trio.testing.wait_all_tasks_blocked(0.002)
        await peer.send(piece)


async def test_pieces_are_given_one_by_one_up_to_the_end_and_the_connection_is_kept(
    pool: Pool,
) -> None:
    async def script(peer: Peer) -> None:
        for _ in range(2):
            await sending(peer, b"1\r\na\r\n", b"1\r\n", b"b\r\n", b"1\r\nc\r\n1\r\nd\r\n", END)
        await peer.hung_up()

    async with scripted(script) as neuron:
        for _ in range(2):
            taker = Taker()
            assert not await pool.pump.pass_on(await ask(pool, neuron.url), taker)
            assert taker.taken == [b"a", b"b", b"cd"]
            assert pool.idle_links == 1
        assert neuron.connections == 1


async def test_what_is_there_already_is_given_at_once(pool: Pool) -> None:
    async with scripted(answering(CHUNKED_HEAD + PIECE + END)) as neuron:
        taker = Taker()
        assert not await pool.pump.pass_on(await ask(pool, neuron.url), taker)
        assert taker.taken == [b"x"]


async def test_an_end_in_one_packet_with_the_last_piece_is_an_end(pool: Pool) -> None:
    async def script(peer: Peer) -> None:
        await sending(peer, PIECE, PIECE + END)
        await peer.hung_up()

    async with scripted(script) as neuron:
        assert not await pool.pump.pass_on(await ask(pool, neuron.url), Taker())
        assert pool.idle_links == 1


async def test_nothing_is_given_to_one_who_wants_no_more_until_it_asks_again(pool: Pool) -> None:
    async def script(peer: Peer) -> None:
        await sending(peer, b"1\r\na\r\n", b"1\r\nb\r\n", b"1\r\nc\r\n", END)
        await peer.hung_up()

    async with scripted(script) as neuron:
        answer, taker = await ask(pool, neuron.url), Taker(lambda data: data != b"b")
        assert await pool.pump.pass_on(answer, taker)
        assert taker.taken == [b"a", b"b"]
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert taker.taken == [b"a", b"b"]
        assert await whole(answer) == b"c"


async def test_a_neuron_that_falls_silent_is_given_up_after_what_it_said(pool: Pool) -> None:
    gone = trio.Event()

    async def script(peer: Peer) -> None:
        await sending(peer, PIECE, PIECE)
        await peer.hung_up()
        gone.set()

    async with scripted(script) as neuron:
        taker, answer = Taker(), await ask(pool, neuron.url, between_bytes_seconds=0.1)
        with pytest.raises(NeuronSilent, match="between_bytes"):
            await pool.pump.pass_on(answer, taker)
        assert taker.taken == [b"x", b"x"]
        await gone.wait()


async def test_every_piece_starts_the_clock_anew(pool: Pool) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(CHUNKED_HEAD)
        for _ in range(5):
            with trio.move_on_after(0.1):
                await trio.sleep_forever()
            await peer.send(PIECE)
        await peer.send(END)
        await peer.hung_up()

    async with scripted(script) as neuron:
        taker, answer = Taker(), await ask(pool, neuron.url, between_bytes_seconds=0.3)
        assert not await pool.pump.pass_on(answer, taker)
        assert b"".join(taker.taken) == b"xxxxx"


@pytest.mark.parametrize("last", [b"", b"what is this?"])
async def test_a_neuron_that_breaks_off_is_told_after_what_it_said(pool: Pool, last: bytes) -> None:
    async def script(peer: Peer) -> None:
        await sending(peer, PIECE, *([PIECE + last] if last else []))
        await (peer.hung_up() if last else peer.reset())

    async with scripted(script) as neuron:
        taker = Taker()
        with pytest.raises(NeuronBroke):
            await pool.pump.pass_on(await ask(pool, neuron.url), taker)
        assert taker.taken == [b"x", b"x"] if last else [b"x"]
        assert pool.idle_links == 0


async def test_a_taker_that_fails_fails_in_its_own_task_and_others_go_on(pool: Pool) -> None:
    steps = [trio.Event(), trio.Event()]

    async def script(peer: Peer) -> None:
        await sending(peer, PIECE)
        for step in steps:
            await step.wait()
            await peer.send(PIECE)
        await peer.send(END)
        await peer.hung_up()

    def failing(data: bytes) -> bool:
        raise ZeroDivisionError

    async with scripted(script) as neuron, trio.open_nursery() as nursery:
        going_on = Taker()

        async def go_on() -> None:
            assert not await pool.pump.pass_on(await ask(pool, neuron.url), going_on)

        nursery.start_soon(go_on)
        await going_on.next()
        async with await ask(pool, neuron.url) as answer:
            with pytest.raises(ZeroDivisionError):
                await pool.pump.pass_on(answer, failing)
        for step in steps:
            step.set()
    assert b"".join(going_on.taken) == b"xxx"


async def test_a_cancel_closes_the_connection_at_once(pool: Pool) -> None:
    gone = trio.Event()

    async def script(peer: Peer) -> None:
        await sending(peer, PIECE)
        await peer.hung_up()
        gone.set()

    async with scripted(script) as neuron:
        taker = Taker()
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:

                async def pass_on() -> None:
                    async with await ask(pool, neuron.url) as answer:
                        await pool.pump.pass_on(answer, taker)

                nursery.start_soon(pass_on)
                await taker.next()
                await trio.testing.wait_all_tasks_blocked(0.01)
                scope.cancel()
        await gone.wait()


async def test_who_is_carried_when_the_pump_ends_goes_on_by_itself(deadlines: Deadlines) -> None:
    """The last streams of a daemon that drains may outlast it."""
    go_on = trio.Event()

    async def script(peer: Peer) -> None:
        await sending(peer, PIECE)
        await go_on.wait()
        await peer.send(PIECE)
        await peer.send(END)
        await peer.hung_up()

    async with scripted(script) as neuron, aclosing(Pool(deadlines, 3)) as pool:
        taker = Taker()
        ends = trio.CancelScope()
        async with trio.open_nursery() as nursery:

            async def pass_on() -> None:
                assert not await pool.pump.pass_on(await ask(pool, neuron.url), taker)

            async def pump(*, task_status: trio.TaskStatus[None]) -> None:
                with ends:
                    await pool.pump.run(task_status=task_status)

            await nursery.start(pump)
            nursery.start_soon(pass_on)
            await taker.next()
            await trio.testing.wait_all_tasks_blocked(0.01)
            ends.cancel()
            await trio.testing.wait_all_tasks_blocked(0.01)
            go_on.set()
        assert b"".join(taker.taken) == b"xx"


async def test_a_neuron_that_floods_does_not_starve_others(pool: Pool) -> None:
    async def flood(peer: Peer) -> None:
        await peer.request()
        await peer.send(CHUNKED_HEAD)
        while True:
            await peer.send(b"10000\r\n%b\r\n" % bytes(0x10000) * 4)

    async def pace(peer: Peer) -> None:
        await peer.request()
        for piece in (CHUNKED_HEAD, *[PIECE] * 10, END):
            await peer.send(piece)
            for _ in range(5):
                await trio.lowlevel.checkpoint()
        await peer.hung_up()

    async with scripted(flood, pace) as neuron, trio.open_nursery() as nursery:

        async def drown() -> None:
            async with await ask(pool, neuron.url) as answer:
                await pool.pump.pass_on(answer, lambda _: True)

        nursery.start_soon(drown)
        while not neuron.connections:
            await trio.lowlevel.checkpoint()
        taker = Taker()
        assert not await pool.pump.pass_on(await ask(pool, neuron.url), taker)
        assert b"".join(taker.taken) == b"x" * 10
        nursery.cancel_scope.cancel()


async def test_while_an_answer_is_carried_its_task_sleeps(pumping: Pool) -> None:
    """That is what makes an event cheap."""
    step = trio.Event()

    async def script(peer: Peer) -> None:
        await sending(peer, PIECE)
        await step.wait()
        await sending_on(peer)

    async def sending_on(peer: Peer) -> None:
        for _ in range(20):
            await trio.testing.wait_all_tasks_blocked(0.002)
            await peer.send(PIECE)
        await peer.send(END)
        await peer.hung_up()

    async with scripted(script) as neuron, trio.open_nursery() as nursery:
        taker = Taker()
        runs: list[trio.lowlevel.Task] = []

        class Watch(trio.abc.Instrument):
            def before_task_step(self, task: trio.lowlevel.Task) -> None:
                if task.name == "carried":
                    runs.append(task)

        async def pass_on() -> None:
            assert not await pumping.pump.pass_on(await ask(pumping, neuron.url), taker)

        nursery.start_soon(pass_on, name="carried")
        await taker.next()
        await trio.testing.wait_all_tasks_blocked(0.01)
        watch = Watch()
        trio.lowlevel.add_instrument(watch)
        step.set()
        while len(b"".join(taker.taken)) < 21:
            await taker.next()
        trio.lowlevel.remove_instrument(watch)
        assert len(runs) <= 1
