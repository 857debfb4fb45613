"""A request that is being answered lets go of what it was asked with."""

import json
import sys

import pytest

from cortexd.dialects.chat import Chat
from cortexd.dialects.completions import Completions
from cortexd.dialects.messages import Messages, MessagesRequest
from cortexd.dialects.responses import Responses
from cortexd.dialects.surface import Document, Surface
from tests.dialects.surfaces import understood

SAID: dict[str, object] = {"messages": [{"role": "user", "content": "a" * 1000}]}
ASKED: list[tuple[Surface, dict[str, object]]] = [
    (Chat(), SAID),
    (Completions(), {"prompt": "a" * 1000}),
    (Responses(), {"input": "a" * 1000}),
    (Messages(), SAID | {"max_tokens": 9}),
]


@pytest.mark.parametrize(("surface", "said"), ASKED, ids=lambda each: type(each).__name__)
@pytest.mark.parametrize("natively", [False, True])
def test_a_request_keeps_nothing_of_its_body_once_it_has_forgotten_it(
    surface: Surface, said: dict[str, object], natively: bool
) -> None:
    """A prompt can be megabytes, and the answer take many minutes."""
    body = json.dumps({"model": "m", "stream": True, **said}).encode()
    kept_by_the_test = sys.getrefcount(body)
    request = understood(surface, Document(body, request_id="r"))
    assert sys.getrefcount(body) > kept_by_the_test
    native = request.native() if isinstance(request, MessagesRequest) else None
    (native.request if native is not None and natively else request).forget()
    assert sys.getrefcount(body) == kept_by_the_test
    request.watch(output_tokens=9)  # all that is needed to read the answer is there
