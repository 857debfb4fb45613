"""SDKs of clients against the daemon, by one table: what a user's program meets and pays.

Each test judges one scenario of every client by what the program saw, what the daemon logged, and
what the neurons counted (see sdk_world.py). What only one SDK can see is in a file of its own.
"""

import json
import re
from collections.abc import Callable

import msgspec
import pytest

from tests.support.daemon_process import ROOT
from tests.whole.sdk_world import BREAKS, DIMENSIONS, NEURONS, SCRIPTS, SEEN_BEFORE_LEAVING, Session

pytestmark = pytest.mark.slow

MANUAL = ROOT / "cortexd" / "manual"


class Client(msgspec.Struct, frozen=True):
    """What an SDK makes of what it is told.

    `tries`: how often it asks in all where asking again is pointless; those that heed
    `x-should-retry` ask once.
    """

    rate: str = "RateLimitError"
    key: str = "AuthenticationError"
    model: str = "NotFoundError"
    silent: str = "InternalServerError"
    broken: str = "APIError"
    tries: int = 1
    finished: str = "stop"
    called: str = "tool_calls"


OPENAI = Client()
ANTHROPIC = Client(broken="APIStatusError", finished="end_turn", called="tool_use")
ANTHROPIC_2 = msgspec.structs.replace(ANTHROPIC, silent="GatewayTimeoutError")
AI = Client(
    rate="AI_RetryError",
    key="AI_APICallError",
    model="AI_APICallError",
    silent="AI_RetryError",
    broken="AI_StreamProviderError",
    tries=3,
    called="tool-calls",
)
CLIENTS = {
    "openai2": OPENAI,
    "openai3": OPENAI,
    "anthropic0": ANTHROPIC,
    "anthropic2": ANTHROPIC_2,
    "anthropic0-native": ANTHROPIC,
    "anthropic2-native": ANTHROPIC_2,
    "litellm": Client(silent="Timeout", broken="MidStreamFallbackError"),
    "npm-openai": OPENAI,
    "npm-anthropic": msgspec.structs.replace(ANTHROPIC_2, broken="APIError"),
    "npm-ai-openai": AI,
    "npm-ai-anthropic": AI,
}


_UNPAID = ("/v1/models", "/v1/models/sim/small", "/v1/messages/count_tokens")


@pytest.fixture(params=CLIENTS)
def session(request: pytest.FixtureRequest, session_with: Callable[[str], Session]) -> Session:
    """The run of one client."""
    return session_with(request.param)


@pytest.fixture
def client(session: Session) -> Client:
    """What is expected of that client."""
    return CLIENTS[session.client]


def seconds(met: object) -> float:
    """How long something took."""
    assert isinstance(met, float)
    return met


def test_every_client_is_expected_something_of() -> None:
    assert set(CLIENTS) == set(SCRIPTS)


def test_a_plain_answer_arrives_with_its_usage(session: Session, client: Client) -> None:
    met = session.met["plain"]
    assert (met["raised"], met["finish_reason"]) == (None, client.finished)
    assert met["total_tokens"] == 15
    assert met["text"]


def test_a_stream_has_the_whole_answer(session: Session, client: Client) -> None:
    met = session.met["streamed"]
    assert (met["raised"], met["finish_reason"]) == (None, client.finished)
    assert met["text"] == session.met["plain"]["text"]


@pytest.mark.parametrize("scenario", ["tools", "tools_streamed"])
def test_a_call_of_a_tool_arrives_as_the_model_made_it(
    session: Session, client: Client, scenario: str
) -> None:
    met = session.met[scenario]
    assert (met["raised"], met["finish_reason"]) == (None, client.called)
    assert isinstance(met["calls"], list)
    [(name, arguments)] = met["calls"]
    assert (name, json.loads(arguments)) == ("weather", {"city": "Köln"})


def test_served_requests_cost_what_their_usage_says(session: Session) -> None:
    answers = [line for line in session.requests["plain"] if line["path"] not in _UNPAID]
    budget = session.budgets["sk-plain"]
    assert (budget["spent"], budget["reserved"]) == (15 * len(answers), 0)
    assert session.served["plain"] == 15 * len(answers)


def test_models_are_listed_and_one_with_a_slash_in_its_name_is_found(session: Session) -> None:
    if "models" not in session.met:
        assert session.client in ("litellm", "npm-ai-openai", "npm-ai-anthropic")  # they ask nobody
        return
    met = session.met["models"]
    assert met["listed"] == sorted(f"sim/{name}" for name in NEURONS)
    assert met["retrieved"] == "sim/small"


def test_vectors_arrive_whole_whatever_the_neuron_sends(session: Session) -> None:
    """OpenAI's packages ask for base64 unseen, and one of them takes numbers for no vector."""
    if "embedded" not in session.met:
        assert "anthropic" in session.client  # whose dialect has none
        return
    met = session.met["embedded"]
    assert met["raised"] is None
    for vectors in (met["vectors"], met["vectors-as-numbers"]):
        assert isinstance(vectors, list)
        assert [len(vector) for vector in vectors] == [DIMENSIONS, DIMENSIONS]
        assert [sum(x * x for x in vector) for vector in vectors] == pytest.approx([1, 1], abs=1e-5)
    spent = int(str(session.budgets["sk-vectors"]["spent"]))
    assert spent == session.served["vectors"] > 0


def test_over_its_balance_a_program_is_told_the_numbers_and_does_not_hammer(
    session: Session, client: Client
) -> None:
    met = session.met["over_a_balance"]
    assert (met["raised"], met["status_code"]) == (client.rate, 429)
    assert "hard cap is 10 tokens" in str(met["message"])
    assert session.statuses("balance") == ["429"] * client.tries
    assert {line["code"] for line in session.requests["balance"]} == {"insufficient_quota"}
    assert session.budgets["sk-balance"]["spent"] == 0
    assert "balance" not in session.served
    assert seconds(met["seconds"]) < (3 if client.tries == 1 else 12)


@pytest.mark.parametrize(
    ("session", "page"),
    [("openai3", "openai-python"), ("anthropic2", "anthropic-python")],
    indirect=["session"],
)
def test_a_refusal_looks_to_a_program_as_the_manual_shows_it(session: Session, page: str) -> None:
    text = (MANUAL / "clients" / f"{page}.md").read_text()
    [shown] = [line for line in text.splitlines() if "Token budget of key" in line]
    assert _form(shown) == _form(str(session.met["over_a_balance"]["message"]))


def _form(message: str) -> str:
    """A message without what differs from case to case: cortexd's own words, and the id."""
    without_words = re.sub(
        r"Token budget of key .*(by time|a smaller max_tokens may)\.", "...", message
    )
    return re.sub(r"req_\w+", "req_", without_words)


def test_over_a_long_window_a_program_does_not_wait_for_an_hour(
    session: Session, client: Client
) -> None:
    met = session.met["over_a_long_window"]
    assert (met["raised"], met["status_code"]) == (client.rate, 429)
    assert session.statuses("long") == ["200"] + ["429"] * client.tries
    assert session.served["long"] == 15
    assert seconds(met["seconds"]) < (3 if client.tries == 1 else 12)


def test_over_a_short_window_a_program_waits_once_and_is_served(session: Session) -> None:
    """Retry-After is exact: one wait is enough, and it is heeded."""
    met = session.met["over_a_short_window"]
    assert met["raised"] is None
    statuses = session.statuses("short")
    assert statuses[:3] == ["200", "429", "200"]
    assert statuses.count("429") < statuses.count("200")
    assert seconds(met["seconds"]) > 0.9 * statuses.count("429")


def test_a_key_that_is_not_known_is_tried_once(session: Session, client: Client) -> None:
    met = session.met["wrong_key"]
    assert (met["raised"], met["status_code"]) == (client.key, 401)
    assert session.statuses("") == ["401"]


def test_a_model_that_is_not_known_is_tried_once(session: Session, client: Client) -> None:
    met = session.met["unknown_model"]
    assert (met["raised"], met["status_code"]) == (client.model, 404)
    assert session.statuses("unknown").count("404") == 1
    assert "unknown" not in session.served
    assert session.budgets["sk-unknown"]["spent"] == 0


def test_a_silent_neuron_is_paid_for_as_often_as_it_was_asked(
    session: Session, client: Client
) -> None:
    """A 504 is final: SDKs would ask again, each time at the price of a whole answer."""
    met = session.met["neuron_falls_silent"]
    assert (met["raised"], met["status_code"]) == (client.silent, 504)
    assert session.statuses("silent") == ["504"] * client.tries
    reserved = sum(int(line["reserved"]) for line in session.requests["silent"])
    assert session.budgets["sk-silent"]["spent"] == reserved


@pytest.mark.parametrize("how", BREAKS)
def test_a_stream_that_breaks_raises_and_never_looks_like_success(
    session: Session, client: Client, how: str
) -> None:
    """Five clients take an end that is merely clean for a whole answer."""
    met = session.met[f"broken_{how}"]
    assert met["raised"] == client.broken
    assert "The neuron" in str(met["message"])
    [line] = session.requests[how]
    assert (line["status"], line["ending"]) == ("200", "neuron_failed")
    assert int(str(session.budgets[f"sk-{how}"]["spent"])) >= session.served[how] > 0
    assert session.budgets[f"sk-{how}"]["reserved"] == 0


def test_a_program_that_closes_its_stream_stops_the_neuron_and_pays_for_what_it_saw(
    session: Session,
) -> None:
    assert session.met["hung_up"]["seen"] == SEEN_BEFORE_LEAVING
    [line] = session.requests["leaving"]
    assert line["ending"] == "client_gone"
    budget = session.budgets["sk-leaving"]
    spent = int(str(budget["spent"]))
    served = session.served["leaving"]
    assert SEEN_BEFORE_LEAVING < served < 200
    if session.client.endswith("-native"):
        assert spent == int(line["reserved"]), "no event of a message is promised to be one token"
    else:
        assert served <= spent < 200
    assert budget["reserved"] == 0
