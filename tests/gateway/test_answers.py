"""The small answers of the core, from facts alone."""

import json

import pytest

from cortexd.config.schema import Catalogue
from cortexd.dialects.refusals import RefusalKind
from cortexd.fleet.catalogue import ModelId
from cortexd.fleet.view import FleetView
from cortexd.gateway.answers import health, ledger_down, may_use
from cortexd.gateway.auth import Principal
from cortexd.ledger.journal import Condition
from tests.cli.test_status import example_view

NOBODY = FleetView({})
UNWELL: tuple[Condition, ...] = ("low_on_room", "failed")


@pytest.mark.parametrize("ledger", UNWELL)
def test_a_ledger_that_takes_nothing_impairs_but_never_outdoes_a_lost_fleet(
    ledger: Condition,
) -> None:
    with_neurons = json.loads(health(example_view(), ledger))
    assert (with_neurons["status"], with_neurons["ledger"]) == ("impaired", ledger)
    assert json.loads(health(NOBODY, ledger))["status"] == "degraded"
    assert json.loads(health(NOBODY, "ok"))["ledger"] == "ok"


def test_health_says_what_to_do_about_the_ledger_and_only_then() -> None:
    assert "ledger_action" not in json.loads(health(NOBODY, "ok"))
    actions = [json.loads(health(NOBODY, bad))["ledger_action"] for bad in UNWELL]
    assert "room" in actions[0]
    assert "kernel log" in actions[1]
    assert all(action.endswith(".") and action.count(".") == 1 for action in actions)


@pytest.mark.parametrize(
    ("ledger", "is_busy", "words"),
    [
        ("low_on_room", False, "disk is nearly full"),
        ("failed", False, "disk failed"),
        ("ok", True, "busy"),
        ("ok", False, "has stopped"),
        ("low_on_room", True, "disk is nearly full"),
    ],
)
def test_the_refusal_of_a_ledger_says_why(ledger: Condition, is_busy: bool, words: str) -> None:
    refusal = ledger_down(ledger, is_busy=is_busy)
    assert (refusal.kind, refusal.retry_after_seconds) == (RefusalKind.LEDGER_UNAVAILABLE, 5)
    assert words in refusal.message
    assert "neuron" in refusal.message
    assert "/" not in refusal.message, "no path of this machine"


@pytest.mark.parametrize(
    ("listed", "allowed"),
    [
        (None, {"m/a", "m/b"}),
        (("m/a",), {"m/a"}),
        (("small",), {"m/a"}),
        (("m/b", "small"), {"m/a", "m/b"}),
        (("M/A", "m/", "unknown"), set()),
    ],
)
def test_a_list_allows_models_by_id_or_by_alias_and_nothing_like_them(
    listed: tuple[str, ...] | None, allowed: set[str]
) -> None:
    principal = Principal("a", "k", (), capped=False, limited=False, models=listed)
    catalogue = Catalogue(aliases={"small": "m/a"})
    models = (ModelId("m/a"), ModelId("m/b"))
    assert {model for model in models if may_use(principal, catalogue, model)} == allowed
