"""One task keeps all streams alive: in time, one at a time, between pieces, never after the end.

In virtual time, a quarter of a second at a step.
"""

import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from cortexd.dialects.messages import Messages
from cortexd.dialects.refusals import Refusal
from cortexd.dialects.surface import Document
from cortexd.dialects.upper_bound import ModelLimits
from cortexd.fleet.outgoing import NO_LINES
from cortexd.gateway.heartbeats import Heartbeats
from cortexd.gateway.out import Out
from cortexd.gateway.progress import Progress
from cortexd.gateway.sending import Sending
from tests.support.core import RecordingClient

STEP = 0.25
EVERY = 5.0
BEAT = b'event: ping\ndata: {"type":"ping"}\n\n'
PIECE = b"data: {}\n\n"


class Sounding:
    """A stream that notes when it was told to give a sign of life, and can be slow at it."""

    def __init__(self) -> None:
        self.began: list[float] = []
        self.written_at = 0.0
        self.is_over = trio.Event()
        self.is_over.set()
        self.may_finish = trio.Event()
        self.may_finish.set()
        self.has_ended = False
        self.was_cut = False
        self.fault: Exception | None = None

    async def heartbeat(self) -> None:
        """Note it; wait until it may be over."""
        assert not self.has_ended, "a heartbeat after the end"
        assert self.is_over.is_set(), "two heartbeats at once"
        self.began.append(trio.current_time())
        self.is_over = trio.Event()
        try:
            if self.fault is not None:
                raise self.fault
            await self.may_finish.wait()
        finally:
            self.written_at = trio.current_time()
            self.is_over.set()

    async def end(self) -> None:
        """Wait for a heartbeat."""
        self.has_ended = True
        try:
            await self.is_over.wait()
        except trio.Cancelled:
            self.was_cut = True
            self.may_finish.set()
            raise


def ending(scope: trio.CancelScope) -> Callable[[str], None]:
    """What ends a stream."""
    return lambda reason: scope.cancel(reason=reason)


class Beating:
    """Heartbeats that run, and the time that they run by."""

    def __init__(self, heartbeats: Heartbeats, nursery: trio.Nursery, clock: MockClock) -> None:
        self.heartbeats = heartbeats
        self._nursery = nursery
        self._clock = clock

    async def pass_time(self, seconds: float) -> None:
        """Let time pass, and everybody do what is then due."""
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(round(seconds / STEP)):
            self._clock.jump(STEP)
            await trio.testing.wait_all_tasks_blocked()

    async def keep(self, stream: Sounding | Out) -> trio.CancelScope:
        """Keep a stream alive until the scope is cancelled."""
        scope = trio.CancelScope()

        async def run(*, task_status: trio.TaskStatus[None]) -> None:
            with scope:
                async with self.heartbeats.beside(stream, ending(scope)):
                    task_status.started()
                    await trio.sleep_forever()

        await self._nursery.start(run)
        return scope


@pytest.fixture
async def beating(mock_clock: MockClock) -> AsyncIterator[Beating]:
    """To be used with `mock_clock`, which only a test can set up."""
    assert trio.lowlevel.current_clock() is mock_clock
    heartbeats = Heartbeats(EVERY)
    async with trio.open_nursery() as nursery:
        await nursery.start(heartbeats.run)
        yield Beating(heartbeats, nursery, mock_clock)
        nursery.cancel_scope.cancel()


async def test_a_silent_stream_sounds_as_often_as_was_asked(
    mock_clock: MockClock, beating: Beating
) -> None:
    await beating.pass_time(3)
    stream = Sounding()
    await beating.keep(stream)
    await beating.pass_time(16)
    assert stream.began == [8, 13, 18]


async def test_the_task_wakes_for_a_stream_that_comes_after_all_others_have_gone(
    mock_clock: MockClock,
    beating: Beating,
) -> None:
    for _ in range(2):
        stream, began_at = Sounding(), trio.current_time()
        scope = await beating.keep(stream)
        await beating.pass_time(EVERY)
        assert stream.began == [began_at + EVERY]
        scope.cancel()
        await beating.pass_time(20)
        assert len(stream.began) == 1
        assert beating.heartbeats.waiting == 0


async def test_only_silence_makes_a_stream_sound(mock_clock: MockClock, beating: Beating) -> None:
    talking, silent = Sounding(), Sounding()
    for stream in (talking, silent):
        await beating.keep(stream)
    for _ in range(20):
        await beating.pass_time(1)
        talking.written_at = trio.current_time()
    await beating.pass_time(EVERY)
    assert talking.began == [25]
    assert silent.began == [5, 10, 15, 20, 25]


async def test_a_client_that_does_not_read_holds_up_nobody_and_never_gets_two_at_once(
    mock_clock: MockClock,
    beating: Beating,
) -> None:
    stuck, free = Sounding(), Sounding()
    stuck.may_finish = trio.Event()
    for stream in (stuck, free):
        await beating.keep(stream)
    await beating.pass_time(21)
    assert stuck.began == [5]
    assert free.began == [5, 10, 15, 20]
    stuck.may_finish.set()
    await beating.pass_time(6)
    assert stuck.began == [5, 26]


async def test_leaving_waits_for_a_heartbeat_that_is_half_sent(
    mock_clock: MockClock, beating: Beating
) -> None:
    stream, left = Sounding(), trio.Event()
    stream.may_finish = trio.Event()
    leave = trio.Event()

    async def run() -> None:
        async with beating.heartbeats.beside(stream, ending(trio.CancelScope())):
            await leave.wait()
        left.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await beating.pass_time(6)
        leave.set()
        await beating.pass_time(30)
        assert not left.is_set()
        stream.may_finish.set()
        await beating.pass_time(STEP)
        assert left.is_set()
        assert not stream.was_cut
    assert stream.began == [5]


async def test_no_heartbeat_begins_after_a_stream_has_left_even_at_the_moment_it_was_due(
    mock_clock: MockClock,
    beating: Beating,
) -> None:
    """Whichever of the two tasks runs first at that moment; `Sounding` would object."""
    streams = [Sounding() for _ in range(100)]

    async def run(stream: Sounding) -> None:
        with trio.move_on_at(EVERY):
            async with beating.heartbeats.beside(stream, ending(trio.CancelScope())):
                await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        for stream in streams:
            nursery.start_soon(run, stream)
        await trio.testing.wait_all_tasks_blocked()
        await beating.pass_time(20)
    assert all(stream.has_ended for stream in streams)
    assert all(len(stream.began) <= 1 for stream in streams)


async def test_what_a_heartbeat_raises_ends_its_stream_and_no_other(
    mock_clock: MockClock, beating: Beating
) -> None:
    broken, fine = Sounding(), Sounding()
    broken.fault = ValueError("a bug")
    await beating.keep(fine)

    async def run() -> None:
        with trio.CancelScope() as scope:
            async with beating.heartbeats.beside(broken, ending(scope)):
                await beating.pass_time(100)

    with pytest.raises(ValueError, match="a bug"):
        await run()
    assert trio.current_time() < EVERY + 1
    await beating.pass_time(EVERY)
    assert fine.began == [5, 10]
    assert beating.heartbeats.running == 1


async def test_streams_that_have_ended_do_not_pile_up(
    mock_clock: MockClock, beating: Beating
) -> None:
    heartbeats, scope = beating.heartbeats, trio.CancelScope()
    long = Sounding()
    await beating.keep(long)
    for _ in range(10_000):
        async with heartbeats.beside(Sounding(), ending(scope)):
            assert heartbeats.running == 2
        assert heartbeats.waiting < 100
    assert heartbeats.running == 1
    await beating.pass_time(EVERY)
    assert long.began == [5]


@pytest.mark.parametrize("seed", range(5))
async def test_no_silence_is_longer_than_was_asked_and_no_heartbeat_comes_before_it(
    mock_clock: MockClock, beating: Beating, seed: int
) -> None:
    choices = random.Random(seed)
    streams = [Sounding() for _ in range(30)]
    last: dict[Sounding, float] = {}
    running: dict[Sounding, trio.CancelScope] = {}
    for _ in range(400):
        for stream in streams:
            if stream not in running:
                if choices.random() < 0.02 and not stream.has_ended:
                    running[stream] = await beating.keep(stream)
                    last[stream] = trio.current_time()
            elif choices.random() < 0.05:
                stream.written_at = last[stream] = trio.current_time()
            elif choices.random() < 0.005:
                running.pop(stream).cancel()
        before = {stream: len(stream.began) for stream in running}
        await beating.pass_time(STEP)
        for stream, count in before.items():
            is_due = trio.current_time() - last[stream] == EVERY
            assert len(stream.began) - count == is_due
            if is_due:
                last[stream] = trio.current_time()
    assert len(last) > 20
    assert sum(len(stream.began) for stream in streams) > 50


class SlowClient(RecordingClient):
    """A client that takes a piece only while it reads, and must not be sent two at once."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = trio.Event()
        self.reads.set()
        self.was_cut = False
        self._is_taking = False

    async def write(self, data: bytes) -> None:
        """Take it, once it is read."""
        assert not self._is_taking, "two pieces at once"
        self._is_taking = True
        try:
            await self.reads.wait()
            await super().write(data)
        except trio.Cancelled:
            self.was_cut = True
            raise
        finally:
            self._is_taking = False


def an_out(client: SlowClient) -> Out:
    """A stream whose head has something to say."""
    asked = {
        "model": "m",
        "max_tokens": 10,
        "messages": [{"role": "user", "content": "a"}],
        "stream": True,
    }
    document = Document(json.dumps(asked).encode(), request_id="r")
    surface = Messages()
    request = surface.understand(document, forward_fields=frozenset())
    assert not isinstance(request, Refusal)
    headers = ((b"content-type", b"text/event-stream"),)
    sending = Sending(surface, request, ModelLimits(None, None, None), 10, NO_LINES, "r")
    return Out(client, headers, Progress(sending), request.watch(output_tokens=10))


async def test_a_heartbeat_sends_the_head_first_and_only_once(
    mock_clock: MockClock, beating: Beating
) -> None:
    client = SlowClient()
    out = an_out(client)
    await beating.keep(out)
    await beating.pass_time(2 * EVERY)
    await out.write(PIECE)
    assert client.status == 200
    assert client.pieces[0].startswith(b"event: message_start")
    assert client.pieces[1:] == [BEAT, BEAT, PIECE]


class QuickClient(SlowClient):
    """A client that takes at once what it can take."""

    def write_now(self, data: bytes) -> Awaitable[None] | None:
        """Take it, if it is read."""
        if not self.reads.is_set():
            return self.write(data)
        self.pieces.append(data)
        return None


async def test_a_piece_is_sent_without_waiting_once_there_is_a_head_and_nothing_is_half_sent(
    mock_clock: MockClock, beating: Beating
) -> None:
    client = QuickClient()
    out = an_out(client)
    assert not out.write_now(PIECE)
    assert client.status is None
    await out.flush()
    assert client.pieces[1:] == [PIECE]
    assert out.write_now(PIECE)
    assert client.pieces[1:] == [PIECE] * 2
    client.reads = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(out.heartbeat)
        await trio.testing.wait_all_tasks_blocked()
        client.reads.set()
        assert not out.write_now(PIECE)
        await out.flush()
    assert client.pieces[1:] == [PIECE, PIECE, BEAT, PIECE]


async def test_what_is_left_of_a_piece_is_flushed_before_any_heartbeat(
    mock_clock: MockClock, beating: Beating
) -> None:
    client = QuickClient()
    out = an_out(client)
    await beating.keep(out)
    await out.write(PIECE)
    client.reads = trio.Event()
    assert not out.write_now(PIECE)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(out.flush)
        await beating.pass_time(2 * EVERY)
        assert client.pieces[1:] == [PIECE]
        client.reads.set()
    assert client.pieces[1:] == [PIECE, PIECE]
    await beating.pass_time(2 * EVERY)
    assert client.pieces[3:4] == [BEAT]


@pytest.mark.parametrize("of_head", [True, False])
async def test_no_heartbeat_falls_into_a_piece_that_is_half_sent(
    mock_clock: MockClock, beating: Beating, of_head: bool
) -> None:
    client = SlowClient()
    out = an_out(client)
    await beating.keep(out)
    async with trio.open_nursery() as nursery:
        if not of_head:
            await out.start()
        client.reads = trio.Event()
        nursery.start_soon(out.write, PIECE)
        await beating.pass_time(3 * EVERY)
        assert client.pieces[1:] == []
        client.reads.set()
        await trio.testing.wait_all_tasks_blocked()
        assert client.pieces[1:] == [PIECE]
    await beating.pass_time(EVERY)
    assert client.pieces[1:] == [PIECE, BEAT]


async def test_a_piece_waits_for_a_heartbeat_that_is_half_sent(
    mock_clock: MockClock, beating: Beating
) -> None:
    client = SlowClient()
    out = an_out(client)
    await beating.keep(out)
    client.reads = trio.Event()
    await beating.pass_time(EVERY)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(out.write, PIECE)
        await beating.pass_time(EVERY)
        assert client.pieces == []
        client.reads.set()
    assert client.pieces[1:] == [BEAT, PIECE]


async def test_a_piece_puts_the_next_heartbeat_off(mock_clock: MockClock, beating: Beating) -> None:
    client = SlowClient()
    out = an_out(client)
    await beating.keep(out)
    for _ in range(3):
        await beating.pass_time(EVERY - 1)
        await out.write(PIECE)
    await beating.pass_time(EVERY)
    assert client.pieces[1:] == [PIECE] * 3 + [BEAT]


async def test_a_request_that_says_it_waits_adds_nothing_to_a_heartbeat_that_is_half_sent(
    mock_clock: MockClock, beating: Beating
) -> None:
    client = SlowClient()
    out = an_out(client)
    await beating.keep(out)
    client.reads = trio.Event()
    await beating.pass_time(EVERY)
    await out.heartbeat()
    client.reads.set()
    await beating.pass_time(1)
    assert client.pieces[1:] == [BEAT]


async def test_a_stream_that_is_over_waits_for_its_half_sent_heartbeat(
    mock_clock: MockClock, beating: Beating
) -> None:
    """Its last bytes come next, and must not come into the middle of it."""
    client, over, left = SlowClient(), trio.Event(), trio.Event()
    out = an_out(client)

    async def run() -> None:
        async with beating.heartbeats.beside(out, ending(trio.CancelScope())):
            await over.wait()
        left.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        client.reads = trio.Event()
        await beating.pass_time(EVERY)
        over.set()
        await beating.pass_time(EVERY)
        assert not left.is_set()
        client.reads.set()
    assert not client.was_cut
    assert client.pieces[1:] == [BEAT]


async def test_a_stream_that_is_cancelled_cuts_off_its_heartbeat_and_is_left_at_once(
    mock_clock: MockClock,
    beating: Beating,
) -> None:
    client = SlowClient()
    client.reads = trio.Event()
    scope = await beating.keep(an_out(client))
    await beating.pass_time(EVERY)
    scope.cancel()
    await trio.testing.wait_all_tasks_blocked()
    assert client.was_cut
    assert beating.heartbeats.running == 0
    client.reads.set()
    await beating.pass_time(2 * EVERY)
    assert client.pieces == []


async def test_a_stream_that_has_ended_sends_no_heartbeat_even_if_it_is_told_to() -> None:
    client = SlowClient()
    out = an_out(client)
    await out.end()
    await out.heartbeat()
    assert client.status is None
