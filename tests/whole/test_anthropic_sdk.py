"""Anthropic's packages against the daemon: what no other SDK shows its user.

What all SDKs have in common is in test_sdks.py, judged by the same runs of the same programs.
"""

from collections.abc import Callable

import pytest

from tests.whole.sdk_world import Session

pytestmark = pytest.mark.slow

CODES = {
    "over_a_balance": "insufficient_quota",
    "over_a_long_window": "rate_limit_exceeded",
    "wrong_key": "invalid_api_key",
    "over_a_balance_streamed": "insufficient_quota",
    "unknown_model": "model_not_found",
    "too_long": "context_length_exceeded",
    "neuron_falls_silent": "upstream_timeout",
    "broken_dying": "upstream_failed",
}
TYPES = {
    "over_a_balance": "rate_limit_error",
    "wrong_key": "authentication_error",
    "over_a_balance_streamed": "rate_limit_error",
    "unknown_model": "not_found_error",
    "too_long": "invalid_request_error",
    "neuron_falls_silent": "timeout_error",
    "broken_dying": "api_error",
}


@pytest.fixture(
    params=["anthropic0", "anthropic2", "npm-anthropic", "anthropic0-native", "anthropic2-native"]
)
def session(request: pytest.FixtureRequest, session_with: Callable[[str], Session]) -> Session:
    """One generation's run."""
    return session_with(request.param)


def test_neurons_are_asked_in_the_words_that_they_understand(session: Session) -> None:
    native = session.client.endswith("-native")
    assert session.paths == {"/v1/messages" if native else "/v1/chat/completions"}


def test_events_come_in_the_order_of_the_protocol_each_block_closed(session: Session) -> None:
    events = session.met["streamed"]["events"]
    assert isinstance(events, list)
    others = [event for event in events if event not in ("content_block_delta", "ping")]
    assert others == [
        "message_start",
        "content_block_start",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]


def test_a_stream_has_its_usage_where_the_package_looks_for_it(session: Session) -> None:
    assert session.met["streamed"]["total_tokens"] == 15


def test_tokens_are_counted_as_they_are_bounded_without_a_neuron(session: Session) -> None:
    counted = session.met["counted"]
    assert counted["input_tokens"] == len('[{"role":"user","content":"hi"}]')
    [line] = [
        line for line in session.requests["plain"] if line["path"] == "/v1/messages/count_tokens"
    ]
    assert line["status"] == "200"
    assert not {"neuron", "reserved"} & set(line)


def test_a_stream_is_refused_before_it_begins(session: Session) -> None:
    met = session.met["over_a_balance_streamed"]
    assert (met["raised"], met["status_code"]) == ("RateLimitError", 429)
    assert "hard cap is 10 tokens" in str(met["message"])
    assert session.statuses("balance-streamed") == ["429"]
    assert "balance-streamed" not in session.served


def test_a_prompt_that_is_too_long_is_told_in_the_words_that_clients_compact_on(
    session: Session,
) -> None:
    met = session.met["too_long"]
    assert (met["raised"], met["status_code"]) == ("BadRequestError", 400)
    assert "prompt is too long: 39062 tokens > 32768 maximum" in str(met["message"])
    assert session.statuses("unknown").count("400") == 1


@pytest.mark.parametrize("scenario", TYPES)
def test_an_error_has_its_type_and_the_id_that_stands_in_the_log(
    session: Session, scenario: str
) -> None:
    met = session.met[scenario]
    assert met["type"] == TYPES[scenario]
    logged = {line["request_id"] for lines in session.requests.values() for line in lines}
    assert met["request_id"] in logged


@pytest.mark.parametrize("scenario", CODES)
def test_an_error_has_its_code_where_the_package_reads_one(session: Session, scenario: str) -> None:
    met = session.met[scenario]
    if session.client.startswith("anthropic2"):
        assert met["error_code"] == CODES[scenario]
    assert CODES[scenario] in str(met["message"])


def test_keys_are_taken_from_either_header(session: Session) -> None:
    """0.x sends `x-api-key`, the others send `Authorization`."""
    assert session.met["plain"]["raised"] is None
    assert {line["key"] for line in session.requests["plain"]} == {"plain"}
