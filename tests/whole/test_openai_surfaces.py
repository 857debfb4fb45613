"""The official openai package, 2.x and 3.x, on every endpoint but chat: served, refused, broken.

One daemon and one run of `sdk_surfaces_script.py` per version; each test judges scenarios by what
the program saw, what the daemon logged, and what the neurons were asked.
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

from cortexd.demo.counters import ANONYMOUS
from cortexd.demo.hardware import SimulatedModel
from cortexd.demo.neuron import SimulatedNeuron
from cortexd.demo.switches import INFERENCE_PATHS, BreakKind, Broken
from tests.support.daemon_process import ROOT, serving
from tests.support.fake_neuron import running, turned
from tests.support.surfaces import all_round_neuron

pytestmark = pytest.mark.slow

SECONDS_MAX = 60
SCRIPT = Path(__file__).with_name("sdk_surfaces_script.py")
SERVED = (
    *("completion", "completion_streamed", "response", "response_streamed", "embeddings"),
    *("rerank", "image", "transcription", "speech"),
)
BROKEN = ("completion_breaks", "response_breaks", "response_breaks_while_gathered")
REFUSED = (*("response_with_a_past", "response_with_a_hosted_tool", "unpriced_speech", "too_long"),)
POOR = (
    *("poor_completion", "poor_response", "poor_embeddings", "poor_rerank"),
    *("poor_image", "poor_transcription", "poor_speech"),
)
CATALOGUE = """
models:
  - id: sim/small
    audio_tokens_max: 500
    tokens_per_speech_character: 2
"""


class Session(msgspec.Struct, frozen=True):
    """One run of the script: what it met, and what the other two parties know of it.

    `met`: scenario -> facts. `requests`: key id -> the daemon's log lines. `budgets`: scenario ->
    its key's budget at the end. `asked`: key id -> paths on which neurons were asked to work.
    `served`: key id -> tokens that neurons produced.
    """

    met: Mapping[str, Mapping[str, object]]
    requests: Mapping[str, Sequence[Mapping[str, str]]]
    budgets: Mapping[str, Mapping[str, object]]
    asked: Mapping[str, Sequence[str]]
    served: Mapping[str, int]


def key(name: str) -> dict[str, object]:
    """The key of a scenario: poor ones cannot pay for what they ask."""
    return {
        "key": f"sk-{name}",
        "account_id": name,
        "hard_cap": 50 if name in POOR else 100_000,
    }


async def one_session(package: Path, directory: Path) -> Session:
    """Run the script against a daemon with two neurons, and gather what everybody saw."""
    catalogue = directory / "models.yaml"
    catalogue.write_text(CATALOGUE)
    dies = turned(broken=Broken(BreakKind.EOF, after_tokens=3), reply_tokens=10)
    neurons = [
        all_round_neuron("works", switches=turned(reply_tokens=10, float_vectors=True)),
        SimulatedNeuron("dies", [SimulatedModel("sim/dying")], switches=dies),
    ]
    scenarios = (*SERVED, *BROKEN, *REFUSED, *POOR)
    async with AsyncExitStack() as stack:
        for each in neurons:
            await stack.enter_async_context(running(each))
        daemon = await stack.enter_async_context(
            serving(
                directory,
                {each.name: each.url for each in neurons},
                keys=[key(name) for name in scenarios],
                models_config=str(catalogue),
            )
        )
        with trio.fail_after(SECONDS_MAX):
            done = await trio.run_process(
                [sys.executable, str(SCRIPT), daemon.gateway],
                env={**os.environ, "PYTHONPATH": str(package)},
                capture_stdout=True,
            )
        budgets = {name: await daemon.budget(f"sk-{name}") for name in scenarios}
        assert await daemon.stop() == 0
    met = {facts["scenario"]: facts for facts in map(json.loads, done.stdout.splitlines())}
    requests: dict[str, list[Mapping[str, str]]] = {}
    for line in daemon.requests():
        if line["path"] != "/v1/budget":
            requests.setdefault(line.get("key", ""), []).append(line)
    asked: dict[str, list[str]] = {}
    served: dict[str, int] = {}
    for each in neurons:
        for request in each.seen:
            if request.path in INFERENCE_PATHS:
                who = request.header(b"x-helexa-key-id") or ANONYMOUS
                asked.setdefault(who, []).append(request.path)
        for who, counted in each.counters.served.by_key.items():
            served[who] = served.get(who, 0) + counted.total
    return Session(met, requests, budgets, asked, served)


@pytest.fixture(scope="module", params=["openai2", "openai3"])
def session(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Session:
    """The script's run with one version of the package."""
    package = ROOT / ".sdk" / request.param
    if not (package / ".ready").exists():
        fetch = f"make {package.relative_to(ROOT)}/.ready"
        pytest.skip(f"THE OPENAI PACKAGE WAS NOT TESTED; fetch it with: {fetch}")
    return trio.run(partial(one_session, package, tmp_path_factory.mktemp(request.param)))


def test_every_scenario_was_played(session: Session) -> None:
    assert set(session.met) == {*SERVED, *BROKEN, *REFUSED, *POOR}


@pytest.mark.parametrize("name", SERVED)
def test_what_is_served_raises_nothing_and_every_token_is_paid_for(
    session: Session, name: str
) -> None:
    assert session.met[name]["raised"] is None
    budget = session.budgets[name]
    assert budget["reserved"] == 0
    assert int(str(budget["spent"])) >= session.served[name]
    assert {line["status"] for line in session.requests[name]} == {"200"}
    assert len(session.requests[name]) == len(session.asked[name])


def test_all_answers_of_all_prompts_arrive_in_order(session: Session) -> None:
    met = session.met["completion"]
    assert met["indices"] == [0, 1, 2, 3]
    assert all(met["texts"])  # type: ignore[arg-type]  # a list, as the script wrote it
    assert met["model"] == "sim/small"


def test_a_streamed_completion_says_what_a_plain_one_says(session: Session) -> None:
    met = session.met["completion_streamed"]
    assert met["text"] == met["plain"] != ""
    assert (met["reasons"], met["usages"]) == (["length"], [])


def test_a_response_is_whole_for_the_package(session: Session) -> None:
    met = session.met["response"]
    assert (met["status"], met["model"]) == ("completed", "sim/small")
    assert met["text"]
    assert met["total_tokens"] == session.budgets["response"]["spent"]


def test_a_streamed_response_satisfies_the_iterator_and_when_gathered(session: Session) -> None:
    met = session.met["response_streamed"]
    kinds = met["kinds"]
    assert isinstance(kinds, list)
    assert (kinds[0], kinds[-1]) == ("response.created", "response.completed")
    assert met["numbers"] == list(range(len(kinds)))
    assert met["text"] == met["final"] != ""
    assert met["models"] == ["sim/small"]


def test_embeddings_arrive_from_an_engine_that_knows_numbers_only(session: Session) -> None:
    met = session.met["embeddings"]
    assert met["lengths"] == [8, 8]
    assert float(str(met["apart"])) < 1e-6
    assert met["total_tokens"] == 5
    assert session.budgets["embeddings"]["spent"] == 2 * 5


def test_documents_are_ranked(session: Session) -> None:
    assert session.met["rerank"]["best"] == 1
    assert session.met["rerank"]["total_tokens"] == session.budgets["rerank"]["spent"]


def test_a_picture_arrives_and_costs_its_pixels_and_steps(session: Session) -> None:
    assert session.met["image"]["picture"] == "iVBORw0K"
    assert session.budgets["image"]["spent"] == -(-512 * 512 * 4 // 1000)


def test_audio_becomes_text_in_both_forms(session: Session) -> None:
    met = session.met["transcription"]
    assert met["text"] == met["bare"] != ""
    counted = -(-1604 // 160) + 12
    assert session.budgets["transcription"]["spent"] == counted + 500 + len("text")


def test_text_becomes_audio_at_the_operators_price(session: Session) -> None:
    met = session.met["speech"]
    assert (met["begins"], met["content_type"]) == ("RIFF", "audio/wav")
    assert session.budgets["speech"]["spent"] == 2 * len("Hello.")


@pytest.mark.parametrize(
    ("name", "code", "param"),
    [
        ("response_with_a_past", "unsupported_parameter", "previous_response_id"),
        ("response_with_a_hosted_tool", "unsupported_parameter", "tools[0].type"),
        ("unpriced_speech", "unsupported_parameter", "model"),
        ("too_long", "context_length_exceeded", None),
    ],
)
def test_what_cannot_be_served_is_a_bad_request_that_no_neuron_sees(
    session: Session, name: str, code: str, param: str | None
) -> None:
    met = session.met[name]
    assert (met["raised"], met["status_code"], met["code"]) == ("BadRequestError", 400, code)
    assert met["param"] == param
    [line] = session.requests[name]
    assert line["request_id"] == met["request_id"]
    assert name not in session.asked
    assert session.budgets[name]["spent"] == 0


@pytest.mark.parametrize("name", POOR)
def test_who_cannot_pay_is_told_so_once_and_no_neuron_sees_it(session: Session, name: str) -> None:
    met = session.met[name]
    assert (met["raised"], met["status_code"]) == ("RateLimitError", 429)
    assert (met["code"], met["type"]) == ("insufficient_quota", "insufficient_quota")
    [line] = session.requests[name]
    assert line["code"] == "insufficient_quota"
    assert name not in session.asked
    assert session.budgets[name]["spent"] == 0


def test_a_completion_that_breaks_raises_and_never_looks_like_success(session: Session) -> None:
    met = session.met["completion_breaks"]
    assert (met["raised"], met["code"]) == ("APIError", "upstream_failed")
    assert len(session.asked["completion_breaks"]) == 1


def test_a_response_that_breaks_ends_in_failure_for_the_iterator_and_when_gathered(
    session: Session,
) -> None:
    met = session.met["response_breaks"]
    assert met["raised"] is None
    assert (met["last"], met["status"]) == ("response.failed", "failed")
    assert met["code"] == "upstream_failed"
    assert session.met["response_breaks_while_gathered"]["gathered"]


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_stream_of_which_nothing_is_proven_costs_its_reservation(
    session: Session, name: str
) -> None:
    [line] = session.requests[name]
    assert line["ending"] == "neuron_failed"
    assert session.budgets[name]["spent"] == int(line["reserved"])
    assert session.served[name] <= int(line["reserved"])
