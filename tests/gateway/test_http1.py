"""One connection of the fast face, over a wire that does exactly what the test says.

What clients see over real sockets is in tests/daemon/test_faces.py; here is what depends on how
bytes happen to be cut, and on clocks.
"""

from collections.abc import Callable

import pytest
import trio
import trio.testing

from cortexd.deadlines import Deadlines
from cortexd.gateway.bodies import BodyLimits, BodyRoom
from cortexd.gateway.http1 import AHEAD_BYTES_MAX, Http1Connection, Http1Face, Http1Limits
from tests.support.faces import PathCore

GET = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
LIMITS = Http1Limits(head_bytes_max=1000, head_seconds=10, idle_seconds=70)
BODIES = BodyLimits(body_bytes_max=1000, bodies_bytes_max=1500, body_seconds=60)


class ScriptedWire:
    """A connection that gives one piece for each receive, after so many seconds, then silence."""

    def __init__(self, *script: bytes | float, takes: Callable[[], bool] = lambda: True) -> None:
        self._script = list(script)
        self._takes = takes
        self.sent = b""
        self.closed_after: float | None = None
        self.lingered = False

    @property
    def descriptor(self) -> None:
        """There is none."""

    def receive_now(self) -> bytes | None:
        """The next piece, if it is one."""
        if self._script and isinstance(self._script[0], bytes):
            return self._script.pop(0)  # type: ignore[return-value]  # just looked at
        return None

    async def receive(self) -> bytes:
        """The next piece."""
        while self._script:
            step = self._script.pop(0)
            if isinstance(step, bytes):
                await trio.lowlevel.checkpoint()
                return step
            await trio.lowlevel.checkpoint()
            with trio.move_on_after(step):
                await trio.sleep_forever()
        await trio.sleep_forever()
        raise AssertionError("unreachable")

    def send_now(self, data: bytes) -> int:
        """Have every piece waited for."""
        return 0

    async def send(self, data: bytes) -> bool:
        """Keep what is sent."""
        self.sent += data
        return self._takes()

    def break_off(self) -> None:
        """Note the time."""
        if self.closed_after is None:
            self.closed_after = trio.current_time()

    async def close(self, *, unread: bool) -> None:
        """Note the time."""
        self.lingered = unread
        self.break_off()


async def run(wire: ScriptedWire, deadlines: Deadlines) -> PathCore:
    """Serve the connection to its end."""
    core = PathCore()
    await connection(wire, core, deadlines).run()
    return core


def connection(wire: ScriptedWire, core: PathCore, deadlines: Deadlines) -> Http1Connection[str]:
    return Http1Face(core, LIMITS, BodyRoom(BODIES), deadlines).connection(wire)


def statuses(wire: ScriptedWire) -> list[bytes]:
    """The statuses of all answers."""
    return [line.split(b" ")[1] for line in wire.sent.split(b"\r\n") if line.startswith(b"HTTP/")]


async def test_one_empty_line_before_a_request_is_skipped_and_no_more_however_they_come(
    deadlines: Deadlines,
) -> None:
    for pieces in ([b"\r\n" + GET], [b"\r", b"\n", GET], [b"\r\n", GET]):
        wire = ScriptedWire(*pieces, b"")
        await run(wire, deadlines)
        assert statuses(wire) == [b"200"]
    for pieces in ([b"\r\n\r\n" + GET], [b"\r\n", b"\r\n", GET], [b"\r\n", b"\r", b"\n" + GET]):
        wire = ScriptedWire(*pieces, b"")
        core = await run(wire, deadlines)
        assert statuses(wire) == [b"400"]
        assert core.asked == []


async def test_a_head_is_refused_as_soon_as_it_is_too_large(deadlines: Deadlines) -> None:
    wire = ScriptedWire(b"GET / HTTP/1.1\r\nx: ", b"y" * 2000)
    await run(wire, deadlines)
    assert statuses(wire) == [b"431"]
    assert wire.lingered


@pytest.mark.parametrize("too_much", [0, 1])
async def test_the_limit_of_a_head_is_exact(too_much: int, deadlines: Deadlines) -> None:
    fixed = len(b"GET / HTTP/1.1\r\nhost: x\r\ny: \r\n\r\n")
    head = b"GET / HTTP/1.1\r\nhost: x\r\ny: %b\r\n\r\n" % (b"z" * (1000 - fixed + too_much))
    wire = ScriptedWire(head, b"")
    await run(wire, deadlines)
    assert statuses(wire) == [b"431" if too_much else b"200"]


async def test_each_wait_has_its_own_clock(
    autojump_clock: trio.testing.MockClock, deadlines: Deadlines
) -> None:
    """A first head, a later one from its first byte, and the time without any."""
    for script, closed_after in (
        ([], 10),
        ([9.0, b"GET"], 10),
        ([9.0, b"\r\n"], 10),
        ([GET], 70),
        ([GET, 60.0, GET], 130),
        ([GET, 50.0, b"GET", 9.0, b" "], 60),
        ([GET + b"GET", 9.0, b" "], 10),
    ):
        wire = ScriptedWire(*script)
        began = trio.current_time()
        await run(wire, deadlines)
        assert wire.closed_after == pytest.approx(began + closed_after)


async def test_a_request_has_no_clock_while_the_core_works(
    autojump_clock: trio.testing.MockClock, deadlines: Deadlines
) -> None:
    wire = ScriptedWire(b"GET /silent HTTP/1.1\r\nhost: x\r\n\r\n", 1000.0, b"")
    await run(wire, deadlines)
    assert wire.closed_after == pytest.approx(1000)


async def test_what_comes_ahead_is_kept_up_to_the_bound(deadlines: Deadlines) -> None:
    for size, script in ((AHEAD_BYTES_MAX, [b""]), (AHEAD_BYTES_MAX + 1, list[bytes]())):
        wire = ScriptedWire(b"GET /silent HTTP/1.1\r\nhost: x\r\n\r\n", b"x" * size, *script)
        core = await run(wire, deadlines)
        assert core.ended.is_set()
        assert wire.sent == b""


async def test_reading_ahead_finds_a_hang_up_behind_what_was_sent_ahead(
    deadlines: Deadlines,
) -> None:
    for script, is_gone in (
        ([b"x"], False),
        ([b"x", b""], True),
        ([b"x" * AHEAD_BYTES_MAX, b"x"], True),
    ):
        conversation, told = connection(ScriptedWire(*script), PathCore(), deadlines), trio.Event()
        conversation.watch(told.set)
        conversation.read_ahead()
        assert told.is_set() == is_gone
        assert conversation.is_gone == is_gone


async def test_a_hang_up_before_a_request_is_watched_is_told_when_it_is(
    deadlines: Deadlines,
) -> None:
    conversation, told = connection(ScriptedWire(), PathCore(), deadlines), trio.Event()
    conversation.has_left()
    assert not conversation.is_gone
    conversation.watch(told.set)
    assert told.is_set()
    assert conversation.is_gone


async def test_nothing_more_is_sent_once_a_send_has_failed(deadlines: Deadlines) -> None:
    wire = ScriptedWire(b"GET /pieces HTTP/1.1\r\nhost: x\r\n\r\n", GET, takes=lambda: False)
    core = await run(wire, deadlines)
    assert wire.sent.count(b"\r\n\r\n") == 1
    assert core.paths == ["/pieces"]
    assert wire.closed_after is not None


async def test_a_client_that_a_send_finds_gone_is_told_of_at_once(deadlines: Deadlines) -> None:
    """Its descriptor is closed and may be another's by now: nobody else can tell."""
    conversation = connection(ScriptedWire(takes=lambda: False), PathCore(), deadlines)
    told = trio.Event()
    conversation.watch(told.set)
    await conversation.send(b"a piece")
    assert told.is_set()


async def test_a_send_that_is_cancelled_ends_the_connection(deadlines: Deadlines) -> None:
    """Half an answer cannot be continued, whoever cancelled the other half."""

    class Stuck(ScriptedWire):
        async def send(self, data: bytes) -> bool:
            await trio.sleep_forever()
            return True

    wire = Stuck()
    conversation = connection(wire, PathCore(), deadlines)
    with trio.move_on_after(0):
        await conversation.send(b"half of it")
    assert conversation.is_gone
    assert wire.closed_after is not None


async def test_what_goes_without_waiting_is_sent_at_once_and_the_rest_is_left(
    deadlines: Deadlines,
) -> None:
    class Narrow(ScriptedWire):
        def send_now(self, data: bytes) -> int:
            self.sent += data[:4]
            return min(4, len(data))

    wire = Narrow()
    conversation = connection(wire, PathCore(), deadlines)
    assert conversation.send_now(b"half") is None
    rest = conversation.send_now(b"half of it")
    assert rest is not None
    assert wire.sent == b"halfhalf"
    await rest
    assert wire.sent == b"halfhalf of it"


async def test_a_client_that_has_gone_is_sent_nothing_and_found_gone(deadlines: Deadlines) -> None:
    wire = ScriptedWire(takes=lambda: False)
    conversation = connection(wire, PathCore(), deadlines)
    for _ in range(2):
        rest = conversation.send_now(b"a")
        assert rest is not None
        await rest
        assert conversation.is_gone
    assert wire.sent == b"a"


async def test_a_drain_waits_for_no_head_and_lets_an_answer_end(deadlines: Deadlines) -> None:
    for script, wanted in (([], []), ([b"GET"], []), ([GET], [b"200"])):
        wire, core = ScriptedWire(*script), PathCore()
        conversation = connection(wire, core, deadlines)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(conversation.run)
            await trio.testing.wait_all_tasks_blocked()
            assert wire.closed_after is None
            conversation.drain()
        assert statuses(wire) == wanted


async def test_a_drain_before_the_first_byte_takes_no_request(deadlines: Deadlines) -> None:
    wire, core = ScriptedWire(GET, b""), PathCore()
    conversation = connection(wire, core, deadlines)
    conversation.drain()
    await conversation.run()
    assert (core.asked, wire.sent) == ([], b"")
