"""A request's way through cortexd, as one page: read `Gateway.serve`, then `Gateway._work`.

The core knows no server. A face reads the head, asks `admit`, reads the body, and calls `serve`;
what it answers goes through the `Client` it brought. A budget is reserved, durably, before any
neuron is asked, and settled before the client can have read the end of its answer.
"""

import logging
import secrets
import time
from collections.abc import Callable

import msgspec
import trio

from cortexd.dialects.asked import Asked
from cortexd.dialects.context_fit import over_context
from cortexd.dialects.models import model_body, models_list
from cortexd.dialects.refusals import Refusal, RefusalKind
from cortexd.dialects.surface import Document, Surface, Understood
from cortexd.dialects.upper_bound import Bound, ModelLimits
from cortexd.finished import Finished
from cortexd.fleet.affinity import Mark, prefix_marks
from cortexd.fleet.catalogue import ModelId, resolve
from cortexd.fleet.lines import Wanted
from cortexd.fleet.pool import Pool
from cortexd.fleet.traffic import Traffic
from cortexd.gateway import answers, cors
from cortexd.gateway.auth import Keyring, Principal
from cortexd.gateway.budget import budget, over_cap
from cortexd.gateway.counting import closer, could_fit, least_bound
from cortexd.gateway.endpoints import Endpoint, EndpointKind, Match, find, spoken_at
from cortexd.gateway.exchange import Client, Head, Incoming
from cortexd.gateway.heartbeats import Heartbeats
from cortexd.gateway.learning import added_by_template
from cortexd.gateway.neuron_headers import neuron_headers
from cortexd.gateway.outlook import Outlook
from cortexd.gateway.relay import LastBytes, Relay, Reply
from cortexd.gateway.sending import Sending
from cortexd.gateway.settings import Settings
from cortexd.ledger.desk import Desk, LedgerBusy, LedgerDown, Reservation, unjournalled
from cortexd.ledger.entries import Refused

log = logging.getLogger("cortexd.gateway")


class Admitted(msgspec.Struct, frozen=True):
    """A request whose endpoint and principal are known.

    `principal` is None on public endpoints. `match` None: a browser asks if a page may call.
    """

    match: Match | None
    principal: Principal | None


class Bounded(msgspec.Struct, frozen=True):
    """A request that was understood, for a model that is known, with the most that it can cost."""

    request: Understood
    model: ModelId
    limits: ModelLimits
    ceiling: Bound


class Gateway:
    """The core: every endpoint of the gateway listener, without a server."""

    def __init__(
        self,
        keyring: Keyring,
        traffic: Traffic,
        desk: Desk,
        settings: Settings,
        *,
        pool: Pool,
        tell: Callable[[Finished], None],
    ) -> None:
        """Take the parts; `tell` is given one `Finished` for every request."""
        self._keyring = keyring
        self._traffic = traffic
        self._pool = pool
        self._desk = desk
        self._settings = settings
        self._tell = tell
        self._secret = secrets.token_bytes(32)
        self.heartbeats = Heartbeats(settings.clocks.heartbeat_seconds)  # to be run beside it

    def admit(self, head: Head) -> Admitted | Refusal:
        """Judge a request by its head alone: does the endpoint exist, may this caller use it."""
        if cors.is_preflight(head):
            return Admitted(None, None)
        match = find(head.method, head.path)
        if isinstance(match, Refusal):
            return match
        if match.endpoint.public:
            return Admitted(match, None)
        principal = self._keyring.authenticate(head.headers)
        if isinstance(principal, Refusal):
            return principal
        encoding = head.headers.get(b"content-encoding")
        if encoding is not None and encoding.strip().lower() not in (b"", b"identity"):
            return Refusal(
                RefusalKind.UNSUPPORTED_MEDIA_TYPE,
                "Compressed request bodies are not accepted; send the body as it is.",
            )
        return Admitted(match, principal)

    async def refuse(self, refusal: Refusal, head: Head, client: Client) -> None:
        """Answer with a refusal that came before the body was read."""
        outlook = Outlook(head, now=trio.current_time())
        await self._answer(refusal, outlook, self._readable(client, head))
        self._tell(outlook.finished(trio.current_time()))

    async def serve(self, admitted: Admitted, incoming: Incoming, client: Client) -> None:
        """Answer one whole request. Bugs become a 500 here; the reservation is settled on the
        way.
        """
        outlook = Outlook(incoming.head, admitted.principal, now=trio.current_time())
        client = self._readable(client, incoming.head)
        try:
            await self._answer_to(admitted, incoming, client, outlook)
        except Exception:
            log.exception("event=bug request_id=%s", incoming.head.request_id)
            if outlook.has_begun:
                raise  # the server then breaks the connection off, which no client takes for an end
            bug = Refusal(RefusalKind.INTERNAL_ERROR, "cortexd met a bug; its log has the details.")
            await self._answer(bug, outlook, client)
        finally:
            self._tell(outlook.finished(trio.current_time()))

    def _readable(self, client: Client, head: Head) -> Client:
        """The client, with the headers that let a page in a browser read its answer."""
        headers = cors.origin_headers(head, self._settings.cors_origins)
        return cors.ReadableByPages(client, headers) if headers else client

    async def _answer_to(
        self, admitted: Admitted, incoming: Incoming, client: Client, outlook: Outlook
    ) -> None:
        principal, match = admitted.principal, admitted.match
        answer: bytes | Refusal
        if match is None:
            outlook.status = 204
            await client.start(204, cors.preflight_headers(incoming.head))
            await client.finish()
            return
        if principal is None:
            view = self._traffic.view
            answer = answers.public(match.endpoint.kind, view, self._desk.condition)
        elif match.endpoint.count is not None:
            answer = self._count(match.endpoint, principal, incoming, outlook)
        elif match.endpoint.metered:
            await self._work(match.endpoint, principal, incoming, client, outlook)
            return
        elif match.endpoint.kind is EndpointKind.BUDGET:
            answer = await self._budget(principal)
        else:
            answer = self._models(match, principal)
        await self._answer(answer, outlook, client)

    async def _budget(self, principal: Principal) -> bytes | Refusal:
        try:
            standings = await self._desk.standings(principal.scopes)
            totals = await self._desk.totals(principal.scopes[-1])
        except LedgerDown as down:
            return self._ledger_down(down)
        return budget(principal, standings, totals)

    def _models(self, match: Match, principal: Principal) -> bytes | Refusal:
        entries = self._traffic.models(principal.models)
        if match.endpoint.kind is EndpointKind.MODELS:
            return models_list(tuple(entries.values()))
        name = match.argument
        found = entries.get(name)
        if found is not None:
            return model_body(found)
        if not answers.may_use(principal, self._traffic.catalogue, self._resolved(name)):
            return answers.model_not_allowed(name)
        return answers.unknown_model(name)

    def _resolved(self, name: str) -> ModelId:
        return resolve(self._traffic.catalogue, name)

    async def _work(
        self,
        endpoint: Endpoint,
        principal: Principal,
        incoming: Incoming,
        client: Client,
        outlook: Outlook,
    ) -> None:
        """The whole way of a request for work; the order of these steps is the promise of the
        product.
        """
        head, capped, surface = incoming.head, principal.capped, endpoint.surface
        assert surface is not None, "what costs something speaks a dialect"
        bounded = self._bounded(surface, principal, incoming, outlook, capped=capped)
        incoming.body = b""  # what is forwarded of it is kept with the request
        if isinstance(bounded, Refusal):
            await self._answer(bounded, outlook, client, endpoint)
            return
        granted = await self._reserve(principal, bounded.ceiling, head, outlook)
        if isinstance(granted, Refusal):
            counted = await self._counted(principal, bounded, surface, outlook)
            if counted is not None:
                granted = await self._reserve(principal, counted, head, outlook)
        if isinstance(granted, Refusal):
            await self._answer(granted, outlook, client, endpoint)
            return
        request, asked = bounded.request, bounded.request.asked
        async with granted:  # leaving settles, whatever happened
            output_tokens = granted.bound.output_tokens
            headers, request_id = neuron_headers(principal, head), head.request_id
            sending = Sending(surface, request, bounded.limits, output_tokens, headers, request_id)
            relay = Relay(
                sending,
                client,
                pool=self._pool,
                clocks=self._settings.clocks,
                heartbeats=self.heartbeats,
                stream_headers=answers.stream_headers(head.request_id)
                + endpoint.limits(granted.standings, wall_ms=_wall_ms())
                if asked.stream
                else (),
            )
            outlook.progress = relay.progress
            try:
                wanted = self._wanted(principal, asked, bounded.model, granted)
                outcome = await relay.run(wanted, self._traffic, granted)
            finally:
                granted.ending = relay.ending
        added = added_by_template(asked, bounded.limits, bounded.ceiling, granted.ending)
        if added:
            await self._desk.learn(bounded.model, added)
        if isinstance(outcome, LastBytes):
            await client.finish(outcome.data)
        elif outcome is not None:
            await self._answer(outcome, outlook, client, endpoint)

    def _bounded(
        self,
        surface: Surface,
        principal: Principal,
        incoming: Incoming,
        outlook: Outlook,
        *,
        capped: bool,
    ) -> Bounded | Refusal:
        """What is asked, of what, and what it can cost: all that is known before money moves."""
        head = incoming.head
        kind = head.headers.get(b"content-type", b"").decode("latin-1")
        posted = Document(incoming.body, kind, head.request_id)
        request = surface.understand(posted, forward_fields=self._settings.forward_fields)
        if isinstance(request, Refusal):
            return request
        asked = outlook.asked = request.asked
        model = self._resolved(asked.model)
        limits = self._usable(principal, asked, model)
        if isinstance(limits, Refusal):
            return limits
        outlook.model = model
        ceiling = over_context(asked, limits) or request.bound(limits, capped=capped)
        if isinstance(ceiling, Refusal):
            return ceiling
        return Bounded(request, model, limits, ceiling)

    def _count(
        self, endpoint: Endpoint, principal: Principal, incoming: Incoming, outlook: Outlook
    ) -> bytes | Refusal:
        """How many tokens a prompt would reserve; it costs nothing, and is never refused a cap."""
        assert endpoint.surface is not None, "what counts speaks a dialect"
        assert endpoint.count is not None, "what counts can say it"
        bounded = self._bounded(endpoint.surface, principal, incoming, outlook, capped=False)
        if isinstance(bounded, Refusal):
            return bounded
        return endpoint.count(bounded.ceiling.prompt_tokens)

    def _usable(self, principal: Principal, asked: Asked, model: ModelId) -> ModelLimits | Refusal:
        """What is known about a model that this caller may use, with what its chat template was
        seen to add.
        """
        if not answers.may_use(principal, self._traffic.catalogue, model):
            return answers.model_not_allowed(asked.model)
        template_tokens = self._desk.template_tokens(model)
        limits = self._traffic.limits(model, template_tokens=template_tokens)
        if limits is None:
            return answers.missing_model(asked.model, self._traffic.view)
        return limits

    async def _reserve(
        self, principal: Principal, ceiling: Bound, head: Head, outlook: Outlook
    ) -> Reservation | Refusal:
        least = least_bound(principal, ceiling) if principal.min_output is not None else None
        outlook.asked_tokens = ceiling.total
        try:
            granted = await self._desk.reserve(
                principal.scopes, ceiling, request_id=head.request_id, least=least
            )
        except LedgerDown as down:
            if not self._serves_without_ledger(principal):
                return self._ledger_down(down)
            granted, outlook.unjournalled = unjournalled(ceiling), True
        if isinstance(granted, Refused):
            outlook.refused = granted
            outlook.standings = (granted.standing,)
            return over_cap(granted, wall_ms=_wall_ms(), clamped=least is not None)
        outlook.standings, outlook.reservation = granted.standings, granted
        outlook.refused = None
        return granted

    async def _counted(
        self, principal: Principal, bounded: Bounded, surface: Surface, outlook: Outlook
    ) -> Bound | None:
        """A closer bound of what was refused by its bytes, where that could let it in."""
        request, ceiling = bounded.request, bounded.ceiling
        least = least_bound(principal, ceiling)
        if not self._settings.exact_counts or not could_fit(outlook.refused, least, request.asked):
            return None
        headers, request_id = neuron_headers(principal, outlook.head), outlook.head.request_id
        most = ceiling.output_tokens
        sending = Sending(surface, request, bounded.limits, most, headers, request_id)
        return await closer(ceiling, sending, self._traffic.routes(bounded.model), self._pool)

    def _ledger_down(self, down: LedgerDown) -> Refusal:
        return answers.ledger_down(self._desk.condition, is_busy=isinstance(down, LedgerBusy))

    def _serves_without_ledger(self, principal: Principal) -> bool:
        """Whether nothing that the ledger would have said could matter, and the operator wants it
        so. A ledger that is only busy would be no reason to stop metering.
        """
        wanted = self._settings.serve_uncapped and not principal.limited
        return wanted and self._desk.condition != "ok"

    def _wanted(
        self, principal: Principal, asked: Asked, model: ModelId, granted: Reservation
    ) -> Wanted:
        """What the fleet has to know. Marks cost a hash of the prompt: only where they matter."""
        marks: tuple[Mark, ...] = ()
        key = principal.key_id or ""
        if self._traffic.has_choice(model):
            scope = (key.encode(), model.encode(), asked.fields.get("tools", b""))
            said = asked.fields.get("messages") or asked.fields.get("input")
            marks = prefix_marks(said or b"", secret=self._secret, scope=scope)
        return Wanted(
            model=model,
            key=key,
            cost_tokens=granted.bound.total,
            weight=principal.weight,
            streams=asked.stream,
            marks=marks,
        )

    async def _answer(
        self,
        answer: bytes | Reply | Refusal,
        outlook: Outlook,
        client: Client,
        endpoint: Endpoint | None = None,
    ) -> None:
        """Send a whole answer with the headers that every answer carries. `endpoint` None: by the
        path.
        """
        request_id = outlook.head.request_id
        if endpoint is None:
            to_anthropic = b"anthropic-version" in outlook.head.headers
            endpoint = spoken_at(outlook.head.path, to_anthropic=to_anthropic)
        standings = outlook.standings
        extra = endpoint.limits(standings, wall_ms=_wall_ms()) if standings else ()
        if isinstance(answer, Refusal):
            model = outlook.asked.model if outlook.asked is not None else ""
            rendered = endpoint.render(answer, request_id=request_id, model=model)
            outlook.status, outlook.refusal = rendered.status, answer
            headers, body = (*rendered.headers, *extra), rendered.body
        else:
            reply = Reply(answer) if isinstance(answer, bytes) else answer
            outlook.status, body = 200, reply.body
            headers = answers.plain_headers(request_id, reply.content_type) + extra
        length = (b"content-length", b"%d" % len(body))
        await client.start(outlook.status, (*headers, length))
        await client.finish(body)


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000
