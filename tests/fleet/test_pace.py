"""Decisions are dear in a large fleet: how many are made, and how many at a stretch."""

import pytest

from cortexd.config.schema import CatalogueModel
from cortexd.fleet.planner import Decision, Planner
from tests.fleet.situations import neuron, on
from tests.support.small_fleet import SmallFleet

LARGE_MB = 20_000
SECONDS = 20


class Counter:
    """How often a planner decides."""

    def __init__(self, planner: Planner, patch: pytest.MonkeyPatch) -> None:
        self.count = 0
        decide = planner.decide

        def counted(*arguments: object) -> Decision:
            self.count += 1
            return decide(*arguments)  # type: ignore[arg-type]  # passed on as they came

        patch.setattr(planner, "decide", counted)


def waiting_behind_a_busy_card(models: int) -> SmallFleet:
    """So many cold models, each of which needs the one card, whose model is always in use."""
    cold = [CatalogueModel(f"org/cold-{number}", vram_mb=LARGE_MB) for number in range(models)]
    busy = CatalogueModel("org/busy", vram_mb=LARGE_MB)
    beast = neuron("beast", 24_000, has=[on("org/busy", 0, mb=LARGE_MB)])
    fleet = SmallFleet(beast, models=(busy, *cold))
    fleet.ask("org/busy")
    fleet.pass_ms(3_600_000)
    for each in cold:
        fleet.ask(each.id)
    return fleet


def decisions(models: int, patch: pytest.MonkeyPatch) -> int:
    """In some seconds of ten polls each."""
    fleet = waiting_behind_a_busy_card(models)
    counter = Counter(fleet.parts.planner, patch)
    for _ in range(10 * SECONDS):
        fleet.pass_ms(100)
        for view in fleet.board.view.neurons.values():
            fleet.board.publish(view)
    return counter.count


def test_many_models_that_wait_are_decided_on_no_more_often_in_all_than_a_few(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Forty of them once took more than a whole core of a gateway with fifty neurons."""
    few, many = decisions(4, monkeypatch), decisions(40, monkeypatch)
    assert many <= 1.5 * few
    assert many >= 40 * SECONDS / 5, "each of them is looked at every few seconds"


def test_others_get_their_turn_after_a_few_decisions(monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = waiting_behind_a_busy_card(40)
    counter = Counter(fleet.parts.planner, monkeypatch)
    fleet.dispatcher.stir_all(fleet.now_ms)
    rounds = 0
    while (wake_at_ms := fleet.outcomes.wake_at_ms) is not None and wake_at_ms <= fleet.now_ms:
        before = counter.count
        fleet.outcomes.tick(fleet.now_ms)
        assert 0 < counter.count - before <= 4
        rounds += 1
    assert (counter.count, rounds) == (40, 10)
