"""The official openai package, 2.x and 3.x, against the daemon: what a user's program meets.

One daemon and one run of `sdk_script.py` per version; each test judges one of its scenarios by what
the program saw, what the daemon logged, and what the neurons counted.
"""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import msgspec
import pytest
import trio

from cortexd.demo.hardware import SimulatedModel
from cortexd.demo.neuron import SimulatedNeuron
from cortexd.demo.switches import BreakKind, Broken
from tests.support.daemon_process import serving
from tests.support.fake_neuron import running, turned
from tests.whole.sdk_folders import sdk_folder

pytestmark = pytest.mark.slow

SECONDS_MAX = 60
SEEN_BEFORE_LEAVING = 7
SCRIPT = Path(__file__).with_name("sdk_script.py")


class Session(msgspec.Struct, frozen=True):
    """One run of the script: what it met, and what the other two parties know of it.

    `met`: scenario -> facts. `requests`: key id ("" without a key) -> the daemon's log lines.
    `budgets`: key -> `GET /v1/budget` at the end. `served`: key id -> tokens that neurons produced.
    """

    met: Mapping[str, Mapping[str, object]]
    requests: Mapping[str, Sequence[Mapping[str, str]]]
    budgets: Mapping[str, Mapping[str, object]]
    served: Mapping[str, int]


def key(name: str, hard_cap: int, seconds: float | None = None) -> dict[str, object]:
    """The key `sk-NAME` with a balance, or with a rolling window."""
    window = {"kind": "balance"} if seconds is None else {"kind": "rolling", "seconds": seconds}
    return {"key": f"sk-{name}", "account_id": name, "hard_cap": hard_cap, "window": window}


# A request reserves 52 tokens and costs 15: under a cap of 60 the second one does not fit.
KEYS = [
    key("plain", 100_000),
    key("balance", 10),
    key("long", 60, seconds=3600),
    key("short", 60, seconds=1),
    key("unknown", 100_000),
    key("dying", 100_000),
    key("silent", 100_000),
    key("leaving", 100_000),
]


def neuron(model: str, **switches: object) -> SimulatedNeuron:
    """A neuron of its own for one model."""
    return SimulatedNeuron(model, [SimulatedModel(f"sim/{model}")], switches=turned(**switches))


async def one_session(package: Path, directory: Path) -> Session:
    """Run the script against a daemon with four neurons, and gather what everybody saw."""
    dies = Broken(BreakKind.EOF, after_tokens=3)
    endless = neuron("endless", gated=True, reply_tokens=500)
    neurons = [
        neuron("small", fixed_usage=(5, 10)),
        neuron("dying", broken=dies, reply_tokens=10),
        neuron("silent", silent=True),
        endless,
    ]
    async with AsyncExitStack() as stack:
        for each in neurons:
            await stack.enter_async_context(running(each))
        urls = {each.name: each.url for each in neurons}
        gateway = {"first_byte_seconds": 2}
        daemon = await stack.enter_async_context(
            serving(directory, urls, keys=KEYS, gateway=gateway)
        )
        await endless.allow(SEEN_BEFORE_LEAVING)
        with trio.fail_after(SECONDS_MAX):
            done = await trio.run_process(
                [sys.executable, str(SCRIPT), daemon.gateway],
                env={**os.environ, "PYTHONPATH": str(package)},
                capture_stdout=True,
            )
            await endless.wait_for_hang_up()
        budgets = {name: await daemon.budget(name) for name in (str(one["key"]) for one in KEYS)}
        assert await daemon.stop() == 0
        met = {facts["scenario"]: facts for facts in map(json.loads, done.stdout.splitlines())}
        requests: dict[str, list[Mapping[str, str]]] = {}
        for line in daemon.requests():
            if line["path"] != "/v1/budget":
                requests.setdefault(line.get("key", ""), []).append(line)
        served = {
            name: counted.total
            for each in neurons
            for name, counted in each.counters.served.by_key.items()
        }
        return Session(met, requests, budgets, served)


@pytest.fixture(scope="module", params=["openai2", "openai3"])
def session(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Session:
    """The script's run with one version of the package."""
    package = sdk_folder(request.param)
    return trio.run(partial(one_session, package, tmp_path_factory.mktemp(request.param)))


def statuses(session: Session, key_id: str) -> list[str]:
    """The status of every request that came with a key, in order."""
    return [line["status"] for line in session.requests[key_id]]


def test_a_plain_answer_arrives_with_its_usage(session: Session) -> None:
    met = session.met["plain"]
    assert met["raised"] is None
    assert (met["model"], met["total_tokens"]) == ("sim/small", 15)
    assert met["text"]


def test_a_stream_has_the_whole_answer_and_no_chunk_that_was_not_asked_for(
    session: Session,
) -> None:
    """Many programs read `choices[0]` of every chunk: the usage chunk has none."""
    met = session.met["streamed"]
    assert met["raised"] is None
    assert met["text"] == session.met["plain"]["text"]
    assert met["finish_reasons"] == [session.met["plain"]["finish_reason"]]
    assert (met["chunks_without_choices"], met["usages"]) == (0, [])


def test_a_stream_ends_with_its_usage_when_that_was_asked_for(session: Session) -> None:
    met = session.met["streamed_with_usage"]
    assert met["text"] == session.met["plain"]["text"]
    assert (met["chunks_without_choices"], met["usages"]) == (1, [15])


def test_three_served_requests_cost_what_their_usage_says(session: Session) -> None:
    budget = session.budgets["sk-plain"]
    assert (budget["spent"], budget["reserved"]) == (3 * 15, 0)
    assert session.served["plain"] == 3 * 15


def test_models_are_listed_and_one_with_a_slash_in_its_name_is_found(session: Session) -> None:
    met = session.met["models"]
    assert met["listed"] == ["sim/dying", "sim/endless", "sim/silent", "sim/small"]
    assert met["retrieved"] == "sim/small"


def test_a_program_over_its_balance_is_told_so_and_asks_exactly_once(session: Session) -> None:
    met = session.met["over_a_balance"]
    assert (met["raised"], met["status_code"]) == ("RateLimitError", 429)
    assert (met["code"], met["type"]) == ("insufficient_quota", "insufficient_quota")
    assert "hard cap is 10 tokens" in str(met["message"])
    [line] = session.requests["balance"]
    assert (line["status"], line["code"]) == ("429", "insufficient_quota")
    assert line["request_id"] == met["request_id"]
    assert "balance" not in session.served


def test_a_program_over_a_long_window_does_not_wait_for_an_hour(session: Session) -> None:
    met = session.met["over_a_long_window"]
    assert (met["raised"], met["code"]) == ("RateLimitError", "rate_limit_exceeded")
    assert statuses(session, "long") == ["200", "429"]
    assert session.served["long"] == 15


def test_a_program_over_a_short_window_waits_and_is_served_at_its_second_try(
    session: Session,
) -> None:
    """Retry-After is exact: one wait is enough."""
    met = session.met["over_a_short_window"]
    assert met["raised"] is None
    assert met["retries"] == [0, 1, 1]
    assert statuses(session, "short") == ["200", "429", "200", "429", "200"]
    assert [line["sdk_retry"] for line in session.requests["short"]] == ["0", "0", "1", "0", "1"]


def test_a_key_that_is_not_known_raises_an_authentication_error(session: Session) -> None:
    met = session.met["wrong_key"]
    assert (met["raised"], met["status_code"]) == ("AuthenticationError", 401)
    assert met["code"] == "invalid_api_key"
    assert statuses(session, "") == ["401"]


def test_a_model_that_is_not_known_raises_a_not_found_error(session: Session) -> None:
    met = session.met["unknown_model"]
    assert (met["raised"], met["code"]) == ("NotFoundError", "model_not_found")
    assert met["param"] == "model"
    assert statuses(session, "unknown") == ["404"]


def test_a_stream_whose_neuron_dies_raises_and_never_looks_like_success(session: Session) -> None:
    met = session.met["neuron_dies_mid_stream"]
    assert met["raised"] == "APIError"
    assert met["code"] == "upstream_failed"
    [line] = session.requests["dying"]
    assert line["ending"] == "neuron_failed"
    assert int(str(session.budgets["sk-dying"]["spent"])) >= session.served["dying"] > 0


def test_a_silent_neuron_is_paid_for_once_and_not_asked_again(session: Session) -> None:
    """The package would ask again three times, each time at the price of a whole answer."""
    met = session.met["neuron_falls_silent"]
    assert (met["raised"], met["status_code"]) == ("InternalServerError", 504)
    assert statuses(session, "silent") == ["504"]
    assert session.budgets["sk-silent"]["spent"] == int(session.requests["silent"][0]["reserved"])


def test_a_program_that_closes_its_stream_stops_the_neuron_and_pays_for_what_it_saw(
    session: Session,
) -> None:
    assert session.met["hung_up"]["seen"] == SEEN_BEFORE_LEAVING
    [line] = session.requests["leaving"]
    assert line["ending"] == "client_gone"
    budget = session.budgets["sk-leaving"]
    spent = int(str(budget["spent"]))
    assert SEEN_BEFORE_LEAVING < session.served["leaving"] <= spent < 200
    assert budget["reserved"] == 0
