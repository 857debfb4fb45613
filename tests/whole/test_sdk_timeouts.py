"""A package that loses patience sends its whole request again: each is a request of its own.

Nobody asked for a second answer, and the neuron works on it all the same, so each has its own
reservation and its own charge, and the budget ends it.
"""

import json
import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from tests.support.daemon_process import ROOT, serving
from tests.support.fake_neuron import fake_neuron

pytestmark = pytest.mark.slow

SECONDS_MAX = 60
SCRIPT = Path(__file__).with_name("sdk_timeout_script.py")
EACH = 52
"""What one of the requests reserves: the bytes of its messages, and 20 tokens of output."""

KEYS = [
    {"key": "sk-rich", "account_id": "rich", "hard_cap": 100 * EACH},
    {"key": "sk-poor", "account_id": "poor", "hard_cap": 2 * EACH + 10},
]
NAMES = ("rich", "poor")


class Session(msgspec.Struct, frozen=True):
    """One call with each key: what was raised, what the daemon logged and booked, and how many
    requests the neuron got.
    """

    raised: dict[str, dict[str, Any]]
    requests: dict[str, list[dict[str, str]]]
    spent: dict[str, object]
    hits: dict[str, int]


async def one_session(package: str, folder: Path, directory: Path) -> Session:
    """Let the package wait for a neuron that never answers."""
    raised: dict[str, dict[str, Any]] = {}
    async with (
        fake_neuron(silent=True) as neuron,
        serving(directory, {"a": neuron.url}, keys=KEYS) as daemon,
    ):

        async def call(name: str) -> None:
            done = await trio.run_process(
                [sys.executable, str(SCRIPT), package, daemon.gateway, f"sk-{name}"],
                env={**os.environ, "PYTHONPATH": str(folder)},
                capture_stdout=True,
            )
            raised[name] = json.loads(done.stdout)

        with trio.fail_after(SECONDS_MAX):
            async with trio.open_nursery() as nursery:
                for name in NAMES:
                    nursery.start_soon(call, name)
            await neuron.wait_for_hang_up(neuron.chat_hits)
        spent = {name: (await daemon.settled_budget(f"sk-{name}"))["spent"] for name in NAMES}
        asked = [request.header(b"x-helexa-key-id") for request in neuron.seen]
        hits = {name: asked.count(name) for name in NAMES}
        assert await daemon.stop() == 0
        requests: dict[str, list[dict[str, str]]] = {name: [] for name in NAMES}
        for line in daemon.requests():
            if line["path"] != "/v1/budget":
                requests[line["key"]].append(line)
    return Session(raised, requests, spent, hits)


@pytest.fixture(scope="module", params=["openai3", "anthropic2"])
def session(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Session:
    """Both calls with one version of one package."""
    folder = ROOT / ".sdk" / request.param
    if not (folder / ".ready").exists():
        fetch = f"make {folder.relative_to(ROOT)}/.ready"
        pytest.skip(f"{request.param.upper()} WAS NOT TESTED; fetch it with: {fetch}")
    package = request.param.rstrip("0123456789")
    return trio.run(partial(one_session, package, folder, tmp_path_factory.mktemp(request.param)))


def test_every_repetition_is_a_request_with_a_reservation_of_its_own(session: Session) -> None:
    lines = session.requests["rich"]
    assert session.raised["rich"]["raised"] == "APITimeoutError"
    assert [line.get("sdk_retry") for line in lines] == ["0", "1", "2"]
    assert len({line["request_id"] for line in lines}) == 3
    assert [line["reserved"] for line in lines] == [str(EACH)] * 3
    assert session.hits["rich"] == 3


def test_each_of_them_is_charged_since_nobody_knows_what_the_neuron_did(session: Session) -> None:
    lines = session.requests["rich"]
    assert [(line["status"], line["ending"]) for line in lines] == [("499", "client_gone")] * 3
    assert [line["charged"] for line in lines] == [str(EACH)] * 3
    assert session.spent["rich"] == 3 * EACH


def test_the_budget_ends_it_before_a_neuron_is_asked_again(session: Session) -> None:
    lines = session.requests["poor"]
    assert [line["status"] for line in lines] == ["499", "499", "429"]
    assert lines[-1]["code"] == "insufficient_quota"
    assert session.raised["poor"]["raised"] == "RateLimitError"
    assert f"its hard cap is {2 * EACH + 10} tokens" in session.raised["poor"]["message"]
    assert session.hits["poor"] == 2
    assert session.spent["poor"] == 2 * EACH
