"""The core without a server: a gateway over a real ledger directory and simulated neurons."""

import contextlib
import hashlib
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import trio

from cortexd.config.schema import (
    Account,
    BalanceWindow,
    Catalogue,
    Config,
    Entitlements,
    Eviction,
    Key,
    Neuron,
    NeuronKind,
    Polling,
    RollingWindow,
    Waiting,
    Window,
)
from cortexd.deadlines import Deadlines, watched_deadlines
from cortexd.dialects.refusals import Refusal
from cortexd.finished import Finished
from cortexd.fleet.board import Board
from cortexd.fleet.observer import Nobody
from cortexd.fleet.poller import run_poller
from cortexd.fleet.pool import Pool
from cortexd.fleet.traffic import Traffic
from cortexd.gateway.auth import Keyring, caps_of
from cortexd.gateway.exchange import End, Head, Headers, Incoming
from cortexd.gateway.hang_ups import watched_by_a_task
from cortexd.gateway.pipeline import Gateway
from cortexd.gateway.relay import Clocks
from cortexd.gateway.settings import Settings
from cortexd.ledger.clock import system_time
from cortexd.ledger.desk import CALLS_MAX, Desk
from cortexd.ledger.disk import DirectoryDisk
from cortexd.ledger.entries import Standing, key_scope
from cortexd.ledger.inbox import Inbox
from cortexd.ledger.journal import Journal, JournalSettings
from cortexd.ledger.task import run_ledger
from cortexd.metrics.instruments import Metrics

__all__ = ["Account", "Core", "RecordingClient", "RollingWindow", "core", "key"]

_TEXT = re.compile(rb'"content":"[^"]')
CLOCKS = Clocks(first_byte_seconds=20, between_bytes_seconds=20)


class RecordingClient:
    """A client that keeps what it is sent, and hangs up when told to."""

    def __init__(self) -> None:
        self.status: int | None = None
        self.headers: dict[str, str] = {}
        self.pieces: list[bytes] = []
        self.finished = False
        self._hung_up = trio.Event()
        self._progress = trio.Condition()

    async def start(self, status: int, headers: Headers) -> None:
        """Keep the head."""
        assert self.status is None, "the head was sent twice"
        self.status = status
        self.headers = {name.decode(): value.decode() for name, value in headers}

    async def write(self, data: bytes) -> None:
        """Keep a piece."""
        assert self.status is not None, "a body without a head"
        self.pieces.append(data)
        async with self._progress:
            self._progress.notify_all()

    def write_now(self, data: bytes) -> Awaitable[None] | None:
        """Have every piece waited for."""
        return self.write(data)

    async def finish(self, data: bytes = b"") -> None:
        """Keep the last piece."""
        assert not self.finished, "finished twice"
        self.finished = True
        await self.write(data)

    async def gone(self) -> None:
        """Return once `hang_up` was called."""
        await self._hung_up.wait()

    def watching(self, hung_up: Callable[[], None]) -> AbstractAsyncContextManager[End]:
        """Call `hung_up` when `hang_up` was called."""
        return watched_by_a_task(self.gone, hung_up)

    def hang_up(self) -> None:
        """Leave."""
        self._hung_up.set()

    @property
    def body(self) -> bytes:
        """Everything that came."""
        return b"".join(self.pieces)

    @property
    def error(self) -> Mapping[str, object]:
        """The `error` object of a whole answer."""
        error: Mapping[str, object] = json.loads(self.body)["error"]
        return error

    def events(self) -> list[str]:
        """The data of every event of a stream, in order."""
        lines = self.body.decode().splitlines()
        return [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]

    @property
    def tokens(self) -> int:
        """How many chunks with text have come."""
        return len(_TEXT.findall(self.body))

    async def wait_for_tokens(self, count: int) -> None:
        """Wait until so many chunks with text have come."""
        await self._wait_until(lambda: self.tokens >= count)

    async def wait_for_pieces(self, count: int) -> None:
        """Wait until so many pieces have come."""
        await self._wait_until(lambda: len(self.pieces) >= count)

    async def wait_for_end(self) -> None:
        """Wait until the answer is whole."""
        await self._wait_until(lambda: self.finished)

    async def _wait_until(self, reached: Callable[[], bool]) -> None:
        with trio.fail_after(20):
            async with self._progress:
                while not reached():
                    await self._progress.wait()


class Core:
    """A gateway, and the ways in which tests look at it."""

    def __init__(
        self,
        gateway: Gateway,
        desk: Desk,
        traffic: Traffic,
        told: list[Finished],
        deadlines: Deadlines,
    ) -> None:
        self.gateway = gateway
        self.desk = desk
        self.traffic = traffic
        self.told = told
        self.deadlines = deadlines

    async def ask(
        self,
        body: Mapping[str, object] | bytes,
        *,
        client: RecordingClient | None = None,
        path: str = "/v1/chat/completions",
        method: str = "POST",
        **headers: str,
    ) -> RecordingClient:
        """Send one request through the core and wait for its end."""
        client = client or RecordingClient()
        named = {name.replace("_", "-").encode(): text.encode() for name, text in headers.items()}
        head = Head(method, path, {b"authorization": b"Bearer sk-cap", **named}, "req_test")
        admitted = self.gateway.admit(head)
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        with trio.fail_after(20):
            if isinstance(admitted, Refusal):
                await self.gateway.refuse(admitted, head, client)
            else:
                await self.gateway.serve(admitted, Incoming(head, data), client)
        return client

    async def standing(self, key_id: str = "key-cap") -> Standing:
        """How the key's own cap stands."""
        [standing] = await self.desk.standings((key_scope(key_id),))
        return standing


def key(
    text: str = "sk-cap",
    key_id: str = "key-cap",
    *,
    hard_cap: int | None = 10_000,
    window: Window | None = None,
    account_id: str = "acct-cap",
) -> Key:
    """A key as the configuration holds it after loading."""
    return Key(
        account_id=account_id,
        key_id=key_id,
        key_sha256=hashlib.sha256(text.encode()).hexdigest(),
        hard_cap=hard_cap,
        window=window or BalanceWindow(),
    )


@contextlib.asynccontextmanager
async def core(
    directory: Path,
    neurons: Mapping[str, str],
    *,
    kind: NeuronKind = "neuron",
    anthropic: Collection[str] = (),
    keys: Sequence[Key] = (),
    accounts: Sequence[Account] = (),
    require_auth: bool = True,
    catalogue: Catalogue | None = None,
    clocks: Clocks = CLOCKS,
    polling: Polling | None = None,
    serve_uncapped: bool = False,
    exact_counts: bool = True,
    room_bytes_min: int = 0,
    calls_max: int = CALLS_MAX,
    waiting: Waiting | None = None,
    eviction: Eviction | None = None,
) -> AsyncIterator[Core]:
    """A gateway in front of `neurons` (name to URL), each polled once before this is entered.

    `anthropic`: names of those that speak Anthropic's dialect. `room_bytes_min`: what the ledger
    wants its disk to have free. `calls_max`: how many may wait for it.
    """
    entitlements = Entitlements(
        require_auth=require_auth, accounts=tuple(accounts), keys=tuple(keys) or (key(),)
    )
    fleet = [Neuron(name, url, kind, anthropic=name in anthropic) for name, url in neurons.items()]
    disk = DirectoryDisk.open(str(directory / "ledger"))
    wanted = JournalSettings(room_bytes_min=room_bytes_min)
    journal = Journal.recover(disk, caps_of(entitlements), system_time(), wanted)
    inbox = Inbox()
    desk = Desk(
        inbox,
        journal.accounts.template_tokens,
        lambda: journal.condition,
        calls_max=calls_max,
    )
    config = Config(
        neurons=tuple(fleet),
        polling=polling or Polling(3600),
        waiting=waiting or Waiting(),
        eviction=eviction or Eviction(),
    )
    board, told = Board(fleet), list[Finished]()
    traffic = Traffic(config, catalogue or Catalogue(), board, Nobody(), started_unix_seconds=0)
    async with (
        watched_deadlines() as deadlines,
        contextlib.aclosing(Pool(deadlines, connect_seconds=5)) as pool,
        trio.open_nursery() as nursery,
    ):
        await nursery.start(run_ledger, journal, inbox, Metrics(lambda: 0).ledger)
        await nursery.start(traffic.run, pool)
        for neuron in fleet:
            await nursery.start(run_poller, neuron, board, pool, config.polling)
        settings = Settings(
            clocks, frozenset(), serve_uncapped=serve_uncapped, exact_counts=exact_counts
        )
        gateway = Gateway(
            Keyring(entitlements), traffic, desk, settings, pool=pool, tell=told.append
        )
        await nursery.start(pool.pump.run)
        await nursery.start(gateway.heartbeats.run)
        try:
            yield Core(gateway, desk, traffic, told, deadlines)
        finally:
            await desk.aclose()
            nursery.cancel_scope.cancel()
    journal.close()
