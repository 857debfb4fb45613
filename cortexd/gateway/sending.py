"""What goes to a neuron: one request, written for whichever kind of neuron takes it.

Owns the step from a route to the bytes of a request, and so the choice between the dialects in
which a request can be put: neurons of one model may speak different ones. Refuses to know how these
are sent and what comes back (relay.py).
"""

from collections.abc import Callable

import msgspec

from cortexd.dialects.engine_traits import TRAITS, Traits
from cortexd.dialects.refusals import Refusal, RefusalKind
from cortexd.dialects.surface import (
    Bilingual,
    Gathering,
    Surface,
    Target,
    Understood,
    Watcher,
    Way,
)
from cortexd.dialects.upper_bound import Bound, ModelLimits
from cortexd.fleet.outgoing import HeaderLines, Outgoing
from cortexd.fleet.routing import Route
from cortexd.gateway.neuron_headers import body_headers, credential


class Sending(msgspec.Struct, frozen=True):
    """What was asked, and who reads what comes back unless a neuron is asked in another way.
    `limits` and `output_tokens` (per choice) are those that the request was bounded by; `headers`
    those that every neuron gets, `request_id` the one under which it gets them.
    """

    surface: Surface
    request: Understood
    limits: ModelLimits
    output_tokens: int
    headers: HeaderLines
    request_id: str

    @property
    def stream(self) -> bool:
        """Whether the client asked for a stream."""
        return self.request.asked.stream

    @property
    def way(self) -> Way:
        """How it is put unless a neuron reads it as it is."""
        return Way(self.surface, self.request)

    def watch(self, way: Way) -> Watcher | None:
        """Begin to watch what comes back from a neuron that is asked in this way; None: no client
        reads a stream.
        """
        return way.request.watch(output_tokens=self.output_tokens) if self.stream else None

    def way_to(self, route: Route) -> Way:
        """How it is put to the neuron at the end of a route.

        A plain answer that has to be gathered from a stream is asked for in the usual way.
        """
        if not route.anthropic or not (self.stream or TRAITS[route.kind].stops_plain):
            return self.way
        native = self.request.native() if isinstance(self.request, Bilingual) else None
        return native or self.way

    def outgrown(
        self, reserved: Bound, now_known: Callable[[], ModelLimits | None]
    ) -> Refusal | None:
        """Why it must not be sent: what was reserved for its prompt was the largest context that
        the model had then, and it has a larger one now. `now_known`: the limits as of now.
        """
        most, prompts = self.limits.context_max, self.request.asked.prompts
        if most is None or not prompts or reserved.prompt_tokens < prompts * most:
            return None
        known = now_known()
        if known is not None and known.context_max is not None and known.context_max <= most:
            return None
        return Refusal(
            RefusalKind.MODEL_LOADING,
            f"The context of model '{self.request.asked.model}' has become larger than the {most} "
            "tokens that were reserved for this prompt. Send it again.",
            retry_after_seconds=1,
        )

    def to(self, route: Route) -> "tuple[Outgoing, Attempt]":
        """Write it for one neuron; what is known of the attempt does not keep what is sent."""
        engine, way = TRAITS[route.kind], self.way_to(route)
        streamed, gathering = self.stream, None
        if not streamed and not engine.stops_plain:
            streamed = True
            gathering = way.request.gather(output_tokens=self.output_tokens)
        target = Target(route.model, self.output_tokens, engine, streamed)
        written = way.request.write(self.limits, target)
        lines = body_headers(written, stream=streamed) + self.headers
        if route.api_key is not None:
            lines += credential(route.api_key)
        path, request_id = way.surface.neuron_path + engine.query, self.request_id.encode()
        outgoing = Outgoing(
            route.base_url, "POST", path, HeaderLines(lines), written.body, request_id
        )
        return outgoing, Attempt(engine, way, streamed, gathering)


class Attempt(msgspec.Struct, frozen=True):
    """A request as one neuron gets it.

    `way`: in which it is asked, and its answer read. `streamed`: that neuron is asked for a stream.
    `gathering`: takes the stream where the client wants a plain answer.
    """

    engine: Traits
    way: Way
    streamed: bool
    gathering: Gathering | None = None
