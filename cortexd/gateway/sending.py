"""What goes to a neuron: one request, written for whichever kind of neuron takes it.

Owns the step from a route to the bytes of a request. Refuses to know how these are sent and what
comes back (relay.py).
"""

import msgspec

from cortexd.dialects.engine_traits import TRAITS, Traits
from cortexd.dialects.surface import Gathering, Surface, Target, Understood
from cortexd.dialects.upper_bound import ModelLimits
from cortexd.fleet.outgoing import Outgoing
from cortexd.fleet.routing import Route
from cortexd.gateway.exchange import Headers
from cortexd.gateway.neuron_headers import body_headers


class Sending(msgspec.Struct, frozen=True):
    """What was asked, and who reads what comes back. `limits` and `output_tokens` (per choice) are
    those that the request was bounded by; `headers` those that every neuron gets.
    """

    surface: Surface
    request: Understood
    limits: ModelLimits
    output_tokens: int
    headers: Headers

    @property
    def stream(self) -> bool:
        """Whether the client asked for a stream."""
        return self.request.asked.stream

    def with_limit(self, output_tokens: int) -> "Sending":
        """The same with the output that was reserved, which may be less than was asked for."""
        return msgspec.structs.replace(self, output_tokens=output_tokens)

    def to(self, route: Route) -> "Attempt":
        """Write it for one neuron."""
        engine = TRAITS[route.kind]
        gathering = None
        if not self.stream and not engine.stops_plain:
            gathering = self.request.gather(output_tokens=self.output_tokens)
        streamed = self.stream or gathering is not None
        target = Target(route.model, self.output_tokens, engine, stream=streamed)
        written = self.request.write(self.limits, target)
        outgoing = Outgoing(
            route.base_url,
            "POST",
            self.surface.neuron_path + engine.query,
            (
                *body_headers(written, stream=target.stream),
                *self.headers,
                *_credential(route),
            ),
            written.body,
        )
        return Attempt(outgoing, engine, streamed, gathering)


class Attempt(msgspec.Struct, frozen=True):
    """A request as one neuron gets it.

    `streamed`: that neuron is asked for a stream. `gathering`: takes the stream where the client
    wants a plain answer.
    """

    outgoing: Outgoing
    engine: Traits
    streamed: bool
    gathering: Gathering | None = None


def _credential(route: Route) -> Headers:
    if route.api_key is None:
        return ()
    return ((b"authorization", b"Bearer " + route.api_key.encode()),)
