"""A stream that breaks, in every way and every dialect: an error, no end, and a charge.

Most clients take a stream that just ends for a whole answer, so its reader has to be told, in the
words of its own dialect; and what a neuron has done is paid for.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from cortexd.demo.switches import BreakKind, Broken
from cortexd.gateway.relay import Clocks
from tests.support.core import RecordingClient, core, key
from tests.support.fake_neuron import fake_neuron
from tests.support.surfaces import MODEL

CLOCKS = Clocks(first_byte_seconds=20, between_bytes_seconds=0.2)
CHAT = [{"role": "user", "content": "hi"}]
ASKED: dict[str, dict[str, object]] = {
    "/v1/chat/completions": {"messages": CHAT, "max_tokens": 400},
    "/v1/completions": {"prompt": "Once", "max_tokens": 400},
    "/v1/responses": {"input": "hi", "max_output_tokens": 400},
    "/v1/messages": {"messages": CHAT, "max_tokens": 400},
}
SEEN = 4
HALF_A_CHARACTER = b'data: {"choices":[{"index":0,"delta":{"content":"\xe4\xb8"}}]}\n\n'
CUT_IN_A_CHARACTER = HALF_A_CHARACTER[:-8]
WAYS = {
    "dies": Broken(BreakKind.EOF, SEEN),
    "resets": Broken(BreakKind.RESET, SEEN),
    "stalls": Broken(BreakKind.SILENCE, SEEN),
    "garbage": Broken(BreakKind.GARBAGE, SEEN),
    "no JSON": Broken(BreakKind.GARBAGE, SEEN, b"data: {oops\n\n"),
    "no object": Broken(BreakKind.GARBAGE, SEEN, b"data: [1]\n\n"),
    "half a character": Broken(BreakKind.GARBAGE, SEEN, HALF_A_CHARACTER),
    "ends in a character": Broken(BreakKind.GARBAGE, SEEN, CUT_IN_A_CHARACTER),
    "ends without a finish": Broken(BreakKind.END, SEEN),
    "says that it is done": Broken(BreakKind.GARBAGE, SEEN, b"data: [DONE]\n\n"),
    "an error": Broken(BreakKind.ERROR_FRAME, SEEN),
    "an error and a goodbye": Broken(BreakKind.ERROR_FRAME_THEN_DONE, SEEN),
    "an error in text": Broken(BreakKind.GARBAGE, SEEN, b'data: {"error":"CUDA"}\n\n'),
    "a flat error": Broken(
        BreakKind.GARBAGE, SEEN, b'data: {"object":"error","message":"CUDA","code":500}\n\n'
    ),
}
TERMINATORS = ("[DONE]", "message_stop", "message_delta", "response.completed")


def last_of(client: RecordingClient) -> dict[str, Any]:
    """The last event of a stream, which has to be JSON."""
    event: dict[str, Any] = json.loads(client.events()[-1])
    return event


def error_in(path: str, event: dict[str, Any]) -> dict[str, Any]:
    """The error that a client of this dialect finds in the last event; fails if there is none."""
    match path:
        case "/v1/messages":
            assert (event["type"], event["request_id"]) == ("error", "req_test")
            assert event["error"]["type"] == "api_error"
            code: dict[str, Any] = {"code": event["error"]["details"]["error_code"]}
            return {**event["error"], **code}
        case "/v1/responses":
            assert event["type"] == "response.failed"
            assert event["response"]["status"] == "failed"
            found: dict[str, Any] = event["response"]["error"]
            return found
        case _:
            assert event.keys() == {"error"}
            assert event["error"]["type"] == "api_error"
            plain: dict[str, Any] = event["error"]
            return plain


@pytest.mark.parametrize("path", ASKED)
@pytest.mark.parametrize("broken", WAYS.values(), ids=WAYS.keys())
async def test_a_broken_stream_is_an_error_to_its_client_and_is_paid_for(
    tmp_path: Path, path: str, broken: Broken
) -> None:
    async with (
        fake_neuron(reply_tokens=50, broken=broken) as neuron,
        core(tmp_path, {"a": neuron.url}, clocks=CLOCKS, keys=[key()]) as it,
    ):
        asked = {"model": MODEL, "stream": True, **ASKED[path]}
        client = await it.ask(asked, path=path)
        assert (client.status, client.finished) == (200, True)
        error = error_in(path, last_of(client))
        assert error["code"] == "upstream_failed"
        assert error["message"]
        assert not [event for event in client.events() for end in TERMINATORS if end in event]
        told, standing = it.told[-1], await it.standing()
        assert told.charge is not None
        assert (told.charge.why, standing.reserved) == ("failed", 0)
        assert told.failure
        assert told.reserved is not None
        assert neuron.counters.served.total <= standing.spent <= told.reserved


@pytest.mark.parametrize("path", sorted(ASKED.keys() - {"/v1/responses"}))
async def test_a_stream_whose_goodbye_is_lost_is_whole(tmp_path: Path, path: str) -> None:
    """Every choice has ended: that the neuron then closes takes nothing from the answer.

    A response's own end is what says so, so that there is nothing to lose behind it.
    """
    async with (
        fake_neuron(reply_tokens=5, no_done=True, until_close=True) as neuron,
        core(tmp_path, {"a": neuron.url}) as it,
    ):
        client = await it.ask({"model": MODEL, "stream": True, **ASKED[path]}, path=path)
        assert client.events()[-1] in ("[DONE]", '{"type":"message_stop"}')
        assert it.told[-1].failure is None
