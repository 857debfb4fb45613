"""The ASGI face: bodies are bounded, read before anything is answered, and hang-ups are noticed."""

from collections.abc import Mapping, Sequence

import trio
import trio.testing

from cortexd.dialects.refusals import Refusal, RefusalKind, render
from cortexd.gateway.asgi import AsgiApp, BodyLimits
from cortexd.gateway.exchange import Client, Head, Incoming

Message = Mapping[str, object]
LIMITS = BodyLimits(body_bytes_max=1000, bodies_bytes_max=1500, body_seconds=10)


class EchoCore:
    """A core that answers with the body, after `gate` where one is given; `/no` is refused."""

    def __init__(self, gate: trio.Event | None = None) -> None:
        self.served: list[Incoming] = []
        self.refused: list[Refusal] = []
        self.gate = gate

    def admit(self, head: Head) -> str | Refusal:
        """Refuse `/no` by its head."""
        return Refusal(RefusalKind.INVALID_API_KEY, "no") if head.path == "/no" else head.path

    async def refuse(self, refusal: Refusal, head: Head, client: Client) -> None:
        """Answer with the refusal."""
        self.refused.append(refusal)
        rendered = render(refusal, request_id=head.request_id)
        await client.start(rendered.status, rendered.headers)
        await client.finish(rendered.body)

    async def serve(self, admitted: str, incoming: Incoming, client: Client) -> None:
        """Answer with the body."""
        self.served.append(incoming)
        if self.gate is not None:
            await self.gate.wait()
        await client.start(200, ())
        await client.finish(incoming.body)


class Peer:
    """The server's side of one ASGI request: pieces of a body in, messages out."""

    def __init__(self, pieces: Sequence[bytes], *, path: str = "/yes", ends: bool = True) -> None:
        self.sent: list[Message] = []
        self.path = path
        self.headers: list[tuple[bytes, bytes]] = []
        self.left = len(pieces)
        self._messages: list[Message] = [
            {"type": "http.request", "body": piece, "more_body": True} for piece in pieces
        ]
        if ends:
            self._messages.append({"type": "http.request", "body": b"", "more_body": False})

    async def receive(self) -> Message:
        """The next message; after the last one, silence."""
        await trio.lowlevel.checkpoint()
        if self._messages:
            self.left = len(self._messages) - 1
            return self._messages.pop(0)
        await trio.sleep_forever()
        raise AssertionError("unreachable")

    async def send(self, message: Message) -> None:
        """Keep what the application sends."""
        self.sent.append(message)

    @property
    def status(self) -> object:
        """The status that was answered."""
        return self.sent[0]["status"]

    async def ask(self, app: AsgiApp[str]) -> None:
        """Send the request to `app`."""
        scope = {"type": "http", "method": "POST", "path": self.path, "headers": self.headers}
        await app(scope, self.receive, self.send)


async def test_a_body_in_pieces_arrives_whole() -> None:
    core, peer = EchoCore(), Peer([b"one ", b"two ", b"three"])
    await peer.ask(AsgiApp(core, LIMITS))
    assert core.served[0].body == b"one two three"
    assert peer.sent[-1]["body"] == b"one two three"


async def test_a_body_over_the_limit_is_a_413_after_it_was_read() -> None:
    """Answering before the client has finished sending can lose the answer to a broken pipe."""
    core, peer = EchoCore(), Peer([b"x" * 600, b"x" * 600])
    await peer.ask(AsgiApp(core, LIMITS))
    assert (peer.status, core.served, peer.left) == (413, [], 0)


async def test_a_declared_length_over_the_limit_is_refused_and_nothing_is_kept() -> None:
    core, peer = EchoCore(), Peer([b"x" * 10])
    peer.headers = [(b"content-length", b"99999999999")]
    app = AsgiApp(core, LIMITS)
    await peer.ask(app)
    assert peer.status == 413
    assert app.room.bytes_kept == 0


async def test_an_endless_body_is_not_read_to_the_end() -> None:
    core, peer = EchoCore(), Peer([b"x" * 900] * 10)
    await peer.ask(AsgiApp(core, LIMITS))
    assert peer.status == 413
    assert peer.left > 5


async def test_what_a_refused_caller_sends_is_read_but_not_kept() -> None:
    core, peer = EchoCore(), Peer([b"x" * 600], path="/no")
    await peer.ask(AsgiApp(core, LIMITS))
    assert (peer.status, core.served, peer.left) == (401, [], 0)


async def test_a_body_that_stops_coming_is_a_408(autojump_clock: trio.testing.MockClock) -> None:
    core, peer = EchoCore(), Peer([b"half"], ends=False)
    await peer.ask(AsgiApp(core, LIMITS))
    assert (peer.status, core.served) == (408, [])
    assert trio.current_time() >= LIMITS.body_seconds


async def test_all_bodies_together_are_bounded_and_the_room_comes_back() -> None:
    gate = trio.Event()
    core = EchoCore(gate)
    app = AsgiApp(core, LIMITS)
    first, second, third = Peer([b"x" * 900]), Peer([b"x" * 900]), Peer([b"x" * 900])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(first.ask, app)
        await trio.testing.wait_all_tasks_blocked()
        await second.ask(app)
        assert second.status == 503
        gate.set()
    await third.ask(app)
    assert (first.status, third.status) == (200, 200)


async def test_a_client_that_leaves_in_its_body_is_not_served() -> None:
    core, peer = EchoCore(), Peer([b"half"], ends=False)
    peer._messages.append({"type": "http.disconnect"})
    await peer.ask(AsgiApp(core, LIMITS))
    assert (core.served, core.refused, peer.sent) == ([], [], [])


async def test_a_plain_request_id_of_the_client_is_kept_and_a_strange_one_replaced() -> None:
    core = EchoCore()
    app = AsgiApp(core, LIMITS)
    for offered in (b"mine-42", b"two\nlines", b"x" * 129, b""):
        peer = Peer([])
        peer.headers = [(b"X-Request-Id", offered)]
        await peer.ask(app)
    ids = [incoming.head.request_id for incoming in core.served]
    assert ids[0] == "mine-42"
    assert all(request_id.startswith("req_") for request_id in ids[1:])
    assert len(set(ids)) == 4


async def test_the_lifespan_is_answered_in_full() -> None:
    """An application that merely returns from the lifespan scope stops some servers at start."""
    phases: list[Message] = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
    sent: list[Message] = []

    async def receive() -> Message:
        return phases.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    await AsgiApp(EchoCore(), LIMITS)({"type": "lifespan"}, receive, send)
    assert [one["type"] for one in sent] == [
        "lifespan.startup.complete",
        "lifespan.shutdown.complete",
    ]


async def test_a_websocket_is_closed() -> None:
    peer = Peer([])
    await AsgiApp(EchoCore(), LIMITS)({"type": "websocket"}, peer.receive, peer.send)
    assert peer.sent == [{"type": "websocket.close"}]
