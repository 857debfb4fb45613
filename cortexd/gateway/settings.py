"""What the operator set for requests, as the core needs it."""

import msgspec

from cortexd.gateway import cors
from cortexd.gateway.relay import Clocks


class Settings(msgspec.Struct, frozen=True):
    """What the operator set for requests.

    `exact_counts`: an engine may be asked to count a prompt that does not fit by its bytes.
    `serve_uncapped`: whom no cap can refuse is served while the ledger takes no reservations.
    `cors_origins`: whose pages a browser may let call, as `https://example.org`, or `*`.
    """

    clocks: Clocks
    forward_fields: frozenset[str]
    serve_uncapped: bool = False
    exact_counts: bool = True
    cors_origins: frozenset[str] = frozenset({cors.ANY_ORIGIN})
