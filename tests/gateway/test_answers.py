"""The small answers of the core, from facts alone."""

import json

import pytest

from cortexd.config.schema import Catalogue
from cortexd.fleet.catalogue import ModelId
from cortexd.fleet.view import FleetView
from cortexd.gateway.answers import health, may_use
from cortexd.gateway.auth import Principal
from cortexd.ledger.journal import Condition
from tests.cli.test_status import example_view

NOBODY = FleetView({})


@pytest.mark.parametrize("ledger", ["low_on_room", "failed"])
def test_a_ledger_that_takes_nothing_impairs_but_never_outdoes_a_lost_fleet(
    ledger: Condition,
) -> None:
    with_neurons = json.loads(health(example_view(), ledger))
    assert (with_neurons["status"], with_neurons["ledger"]) == ("impaired", ledger)
    assert json.loads(health(NOBODY, ledger))["status"] == "degraded"
    assert json.loads(health(NOBODY, "ok"))["ledger"] == "ok"


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
