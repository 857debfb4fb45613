"""cortexd in front of real engines, with both books: what it charged and what they counted."""

import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

import httpx
import msgspec

from tests.engines.real_engine import Engine, Meter, llama_server
from tests.support.daemon_process import CAPPED_KEY, DaemonProcess, chat, serving


class Spending(msgspec.Struct, frozen=True):
    """What the ledger says of the key."""

    hard_cap: int
    spent: int
    reserved: int


class Metered:
    """A daemon, the engines behind it, and a client with a key for it."""

    def __init__(
        self, daemon: DaemonProcess, engines: Sequence[Engine], client: httpx.AsyncClient
    ) -> None:
        self.daemon = daemon
        self.engines = engines
        self.client = client
        self._spent = 0
        self._metered = Meter()

    @property
    def engine(self) -> Engine:
        """The only one."""
        (engine,) = self.engines
        return engine

    async def ask(self, **fields: object) -> httpx.Response:
        """One chat request through the gateway; `fields` as in `chat`."""
        body = chat(**fields)  # type: ignore[arg-type]  # fields of the body, by name
        return await self.client.post("/v1/chat/completions", json=body)

    async def spending(self) -> Spending:
        """The ledger's word, now."""
        answer = await self.client.get("/v1/budget")
        return msgspec.json.decode(answer.content, type=Spending)

    async def counted(self) -> int:
        """Tokens that all engines have counted, now."""
        return sum([(await engine.meter()).tokens for engine in self.engines])

    async def costs(self) -> tuple[int, Meter]:
        """Charged by the ledger and counted by the only engine since last asked, both at rest."""
        metered = await self.engine.meter_when_idle()
        await self.daemon.settled_budget()
        spending = await self.spending()
        charged, counted = spending.spent - self._spent, metered.since(self._metered)
        self._spent, self._metered = spending.spent, metered
        return charged, counted


@contextlib.asynccontextmanager
async def metered(
    program: Path,
    models: Sequence[Path],
    directory: Path,
    *,
    hard_cap: int = 100_000,
    kind: str = "openai",
    slots: int = 4,
    slot_tokens: int = 2048,
    polling: Mapping[str, object] | None = None,
    flags: Sequence[str] = (),
    anthropic: bool = False,
) -> AsyncIterator[Metered]:
    """A daemon whose neurons are one llama-server for each of `models`, and one capped key.

    No request in between may have used more than was reserved for it.
    """
    async with contextlib.AsyncExitStack() as stack:
        engines = [
            await stack.enter_async_context(
                llama_server(program, model, slots=slots, slot_tokens=slot_tokens, flags=flags)
            )
            for model in models
        ]
        neurons = {
            f"llama-{model.stem}": {"endpoint": engine.url, "kind": kind, "anthropic": anthropic}
            for model, engine in zip(models, engines, strict=True)
        }
        key = {**CAPPED_KEY, "hard_cap": hard_cap}
        sections = {"polling": polling} if polling is not None else {}
        daemon = await stack.enter_async_context(
            serving(directory, neurons, keys=[key], **sections)  # type: ignore[arg-type]  # by name
        )
        client = await stack.enter_async_context(
            daemon.client(limits=httpx.Limits(max_connections=None))
        )
        yield Metered(daemon, engines, client)
        assert "event=overrun" not in daemon.log.read_text()
