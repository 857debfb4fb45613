"""The metrics listener: `/metrics`, `/health` and `/status`, for the operator's own network."""

import contextlib

import msgspec
import trio

from cortexd.dialects.refusals import Refusal, RefusalKind, render
from cortexd.fleet.traffic import Traffic
from cortexd.gateway import answers
from cortexd.gateway.exchange import Client, Head, Incoming
from cortexd.ledger.desk import Desk, LedgerDown
from cortexd.ledger.entries import Scope, Standing
from cortexd.metrics.instruments import CONTENT_TYPE, Metrics

PATHS = ("/metrics", "/health", "/status")
METHODS = ("GET", "HEAD")


class MetricsCore:
    """A core: everything here is read-only and needs no key."""

    def __init__(
        self, metrics: Metrics, traffic: Traffic, desk: Desk, *, capped: tuple[Scope, ...]
    ) -> None:
        """Show `metrics`, the fleet and its `traffic`, and the caps of the `capped` scopes."""
        self._metrics = metrics
        self._traffic = traffic
        self._desk = desk
        self._capped = tuple(dict.fromkeys(capped))

    def admit(self, head: Head) -> str | Refusal:
        """The path that is asked for, or why not."""
        if head.path not in PATHS:
            return Refusal(
                RefusalKind.UNKNOWN_URL, f"This listener answers {', '.join(PATHS)} only."
            )
        if head.method not in METHODS:
            why = f"{head.path} can only be read."
            return Refusal(RefusalKind.METHOD_NOT_ALLOWED, why, allowed_methods=METHODS)
        return head.path

    async def refuse(self, refusal: Refusal, head: Head, client: Client) -> None:
        """Answer a request that makes no sense here."""
        rendered = render(refusal, request_id=head.request_id)
        await client.start(rendered.status, rendered.headers)
        await client.finish(rendered.body)

    async def serve(self, admitted: str, incoming: Incoming, client: Client) -> None:
        """Answer one of the paths."""
        content = b"application/json"
        if admitted == "/metrics":
            content, body = CONTENT_TYPE, await self._exposition()
        elif admitted == "/health":
            body = answers.health(self._traffic.view, self._desk.condition)
        else:
            body = msgspec.json.encode(self._traffic.view)
        length = b"%d" % len(body)
        await client.start(200, ((b"content-type", content), (b"content-length", length)))
        await client.finish(body)

    async def _exposition(self) -> bytes:
        standings: tuple[Standing, ...] = ()
        self._metrics.working(
            in_flight=self._traffic.parts.residents.in_flight,
            tasks=trio.lowlevel.current_statistics().tasks_living,
        )
        with contextlib.suppress(LedgerDown):  # then the other figures matter more than ever
            standings = await self._desk.standings(self._capped)
        return self._metrics.exposition(
            self._traffic.view,
            standings,
            self._desk.condition,
            clock_skew_ms=self._desk.clock_skew_ms,
        )
