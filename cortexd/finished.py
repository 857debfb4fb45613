"""What is told of a request once it is over: one struct for the log line and the metrics."""

import msgspec

from cortexd.dialects.usage import EndingKind, Usage
from cortexd.fleet.answer import Clock
from cortexd.fleet.serving import Unserved
from cortexd.ledger.charging import Charge
from cortexd.ledger.entries import Refused


class Finished(msgspec.Struct):
    """One finished request. Names and numbers only: never a key, a prompt or an answer. Made by
    `Outlook.finished`, and read by everybody else.

    Times are seconds; `reserved` and `charged` tokens; None where it never came to that. `model`:
    empty where a request to an inference endpoint never came to one that is known, None elsewhere.
    `would_refuse`: what a shadow cap would have answered. `clamped_from`: the tokens that were
    asked for, where fewer were reserved. `unjournalled`: served while the ledger was down.
    `waited_ms`: for its turn and for its model. `clock`: which limit on a neuron's silence ran out.
    `notes`: what was amiss with an answer and is no failure, in words of cortexd's own.
    """

    request_id: str
    method: str
    path: str
    status: int
    duration_seconds: float
    account_id: str | None = None
    key_id: str | None = None
    model: str | None = None
    neuron: str | None = None
    stream: bool = False
    code: str | None = None
    refused: Refused | None = None
    would_refuse: Refused | None = None
    unjournalled: bool = False
    reserved: int | None = None
    clamped_from: int | None = None
    charge: Charge | None = None
    usage: Usage | None = None
    ending: EndingKind | None = None
    failure: str | None = None
    waited_ms: int = 0
    unserved: Unserved | None = None
    clock: Clock | None = None
    first_token_seconds: float | None = None
    dropped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    retry_count: str | None = None
