"""The official anthropic package, 0.x and 2.x, against the daemon: what a user's program meets.

One daemon and one run of `anthropic_script.py` per version; each test judges one of its scenarios
by what the program saw, what the daemon logged, and what the neurons were asked.
"""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from cortexd.demo.hardware import SimulatedModel
from cortexd.demo.neuron import SimulatedNeuron
from cortexd.demo.switches import BreakKind, Broken
from tests.support.daemon_process import ROOT, serving
from tests.support.fake_neuron import running, turned

pytestmark = pytest.mark.slow

SECONDS_MAX = 60
SCRIPT = Path(__file__).with_name("anthropic_script.py")
SCENARIOS = (
    *("message", "streamed", "counted", "listed", "poor", "poor_streamed", "stranger"),
    *("absent", "too_long", "dying"),
)


class Session(msgspec.Struct, frozen=True):
    """One run of the script: what it met, and what the other two parties know of it.

    `met`: scenario -> facts. `requests`: key id ("" without a key) -> the daemon's log lines.
    `budgets`: scenario -> its key's budget at the end. `hits`: key id -> chats at neurons.
    """

    met: Mapping[str, Mapping[str, Any]]
    requests: Mapping[str, Sequence[Mapping[str, str]]]
    budgets: Mapping[str, Mapping[str, object]]
    hits: Mapping[str, int]


def key(name: str) -> dict[str, object]:
    """The key of a scenario: poor ones cannot pay for what they ask."""
    cap = 30 if name.startswith("poor") else 100_000
    return {"key": f"sk-{name}", "account_id": name, "hard_cap": cap}


async def one_session(package: Path, directory: Path) -> Session:
    """Run the script against a daemon with two neurons, and gather what everybody saw."""
    dies = turned(broken=Broken(BreakKind.EOF, after_tokens=3), reply_tokens=10)
    neurons = [
        SimulatedNeuron("small", switches=turned(fixed_usage=(5, 10))),
        SimulatedNeuron("dying", [SimulatedModel("sim/dying")], switches=dies),
    ]
    async with AsyncExitStack() as stack:
        for each in neurons:
            await stack.enter_async_context(running(each))
        urls = {each.name: each.url for each in neurons}
        keys = [key(name) for name in SCENARIOS]
        daemon = await stack.enter_async_context(serving(directory, urls, keys=keys))
        with trio.fail_after(SECONDS_MAX):
            done = await trio.run_process(
                [sys.executable, str(SCRIPT), daemon.gateway],
                env={**os.environ, "PYTHONPATH": str(package)},
                capture_stdout=True,
            )
        budgets = {name: await daemon.budget(f"sk-{name}") for name in SCENARIOS}
        assert await daemon.stop() == 0
    met = {facts["scenario"]: facts for facts in map(json.loads, done.stdout.splitlines())}
    requests: dict[str, list[Mapping[str, str]]] = {}
    for line in daemon.requests():
        if line["path"] != "/v1/budget":
            requests.setdefault(line.get("key", ""), []).append(line)
    hits: dict[str, int] = {}
    for each in neurons:
        for request in each.seen:
            if request.path == "/v1/chat/completions":
                who = request.header(b"x-helexa-key-id") or ""
                hits[who] = hits.get(who, 0) + 1
    return Session(met, requests, budgets, hits)


@pytest.fixture(scope="module", params=["anthropic0", "anthropic2"])
def session(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Session:
    """The script's run with one version of the package."""
    package = ROOT / ".sdk" / request.param
    if not (package / ".ready").exists():
        fetch = f"make {package.relative_to(ROOT)}/.ready"
        pytest.skip(f"THE ANTHROPIC PACKAGE WAS NOT TESTED; fetch it with: {fetch}")
    return trio.run(partial(one_session, package, tmp_path_factory.mktemp(request.param)))


def test_a_message_arrives_with_its_usage(session: Session) -> None:
    met = session.met["message"]
    assert met["raised"] is None
    assert (met["model"], met["stop_reason"], met["tokens"]) == ("sim/small", "end_turn", 15)
    assert met["text"]
    assert session.budgets["message"]["spent"] == 15


def test_a_stream_satisfies_the_package_and_says_what_a_message_says(session: Session) -> None:
    met = session.met["streamed"]
    assert met["raised"] is None
    assert met["text"] == met["final"] == met["plain"] != ""
    assert met["tokens"] == 15
    assert session.budgets["streamed"]["spent"] == 2 * 15


def test_tokens_are_counted_without_a_neuron(session: Session) -> None:
    assert session.met["counted"]["tokens"] == len('[{"role":"user","content":"hi"}]')
    assert "counted" not in session.hits
    assert session.budgets["counted"]["spent"] == 0


def test_models_are_listed_and_found(session: Session) -> None:
    met = session.met["listed"]
    assert (met["models"], met["one"]) == (["sim/dying", "sim/small"], "sim/small")


@pytest.mark.parametrize("name", ["poor", "poor_streamed"])
def test_who_cannot_pay_is_told_so_once_and_no_neuron_sees_it(session: Session, name: str) -> None:
    met = session.met[name]
    assert (met["raised"], met["status_code"]) == ("RateLimitError", 429)
    assert met["told"]["details"]["error_code"] == "insufficient_quota"
    assert "hard cap is 30 tokens" in met["told"]["message"]
    [line] = session.requests[name]
    assert (line["code"], line["request_id"]) == ("insufficient_quota", met["request_id"])
    assert name not in session.hits


@pytest.mark.parametrize(
    ("name", "raised", "status", "kind"),
    [
        ("stranger", "AuthenticationError", 401, "authentication_error"),
        ("absent", "NotFoundError", 404, "not_found_error"),
        ("too_long", "BadRequestError", 400, "invalid_request_error"),
    ],
)
def test_other_refusals_raise_what_anthropics_own_would(
    session: Session, name: str, raised: str, status: int, kind: str
) -> None:
    met = session.met[name]
    assert (met["raised"], met["status_code"]) == (raised, status)
    assert met["told"]["type"] == kind
    assert len(session.requests["" if name == "stranger" else name]) == 1
    assert name not in session.hits


def test_a_prompt_that_is_too_long_is_told_in_the_words_that_clients_compact_on(
    session: Session,
) -> None:
    assert "prompt is too long: 39062 tokens > 32768 maximum" in session.met["too_long"]["message"]


def test_a_stream_whose_neuron_dies_raises_and_never_looks_like_success(session: Session) -> None:
    met = session.met["dying"]
    assert met["raised"] is not None
    assert session.hits["dying"] == 1
    [line] = session.requests["dying"]
    assert line["ending"] == "neuron_failed"
