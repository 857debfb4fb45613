"""What the tests of all surfaces share: a request understood, refused, bounded, written."""

import json
from typing import TypeVar

from cortexd.dialects.asked import Asked
from cortexd.dialects.openai import chat_body
from cortexd.dialects.refusals import Refusal
from cortexd.dialects.surface import Document, Surface, Target, Understood
from cortexd.dialects.upper_bound import Bound, ModelLimits

UNKNOWN = ModelLimits(context_min=None, context_max=None, output=None)

ReadT = TypeVar("ReadT")


def document(body: dict[str, object] | bytes) -> Document:
    """A body as it is posted."""
    return Document(body if isinstance(body, bytes) else json.dumps(body).encode())


def understood(
    surface: Surface, body: dict[str, object] | bytes | Document, *forward_fields: str
) -> Understood:
    """The request that a surface makes of a body."""
    posted = body if isinstance(body, Document) else document(body)
    request = surface.understand(posted, forward_fields=frozenset(forward_fields))
    assert not isinstance(request, Refusal), request
    return request


def asked_of(
    surface: Surface, body: dict[str, object] | bytes | Document, *forward_fields: str
) -> Asked:
    """What a surface reads in a body."""
    return understood(surface, body, *forward_fields).asked


def refused(surface: Surface, body: dict[str, object] | bytes | Document) -> Refusal:
    """The refusal that a body gets, which is a 400 in OpenAI's envelope."""
    posted = body if isinstance(body, Document) else document(body)
    refusal = surface.understand(posted, forward_fields=frozenset())
    assert isinstance(refusal, Refusal), refusal
    assert surface.render(refusal, request_id="r").status == 400
    return refusal


def bound_of(request: Understood, limits: ModelLimits = UNKNOWN, *, capped: bool = True) -> Bound:
    """What a request reserves."""
    bound = request.bound(limits, capped=capped)
    assert isinstance(bound, Bound), bound
    return bound


def written(
    request: Understood, limits: ModelLimits = UNKNOWN, *, output_tokens: int = 77
) -> dict[str, object]:
    """The JSON body that a neuron gets; it knows the model as `there`."""
    sent = request.write(limits, Target("there", output_tokens, stream=request.asked.stream))
    assert sent.content_type == "application/json"
    decoded: dict[str, object] = json.loads(sent.body)
    return decoded


def answer(body: dict[str, object] | bytes) -> Document:
    """A neuron's plain answer."""
    return document(body)


def told(value: ReadT | None) -> ReadT:
    """Something that must have been read."""
    assert value is not None
    return value


def sent_chat(asked: Asked, *, model: str, output_tokens: int) -> bytes:
    """The body of a chat for any engine, streamed as it was asked for."""
    return chat_body(asked, Target(model, output_tokens, stream=asked.stream))
