"""What is told of a model that no healthy neuron could load."""

import msgspec
import pytest

from cortexd.fleet.feasibility import Reason
from cortexd.fleet.placement import Infeasible, Kind
from cortexd.fleet.reach import NOWHERE, out_of_reach
from cortexd.fleet.reports import ModelId
from cortexd.fleet.serving import Cause, Unserved
from cortexd.fleet.view import NeuronName, NeuronView, Status
from tests.fleet.situations import fleet, neuron, on

A = ModelId("a")
NEVER_HEARD_OF = neuron("late", healthy=False)


def told(answer: Infeasible, *neurons: NeuronView, draining: tuple[str, ...] = ()) -> Unserved:
    return out_of_reach(A, answer, fleet(*neurons), frozenset(map(NeuronName, draining)))


def test_every_reason_why_a_model_runs_nowhere_has_words() -> None:
    assert NOWHERE.keys() == set(Reason)


@pytest.mark.parametrize(
    ("answer", "cause", "words"),
    [
        (Infeasible(Kind.NOWHERE), Cause.NOWHERE, "no neuron is configured"),
        (Infeasible(Kind.NOWHERE, Reason.HARNESS_MISSING), Cause.NOWHERE, "harness"),
        (Infeasible(Kind.ONLY_UNHEALTHY), Cause.UNHEALTHY, "do not answer"),
        (Infeasible(Kind.ONLY_UNHEALTHY, Reason.CUDA_UNAVAILABLE), Cause.UNHEALTHY, "reboot"),
        (Infeasible(Kind.ONLY_DRAINING), Cause.DRAINING, "drained"),
    ],
)
def test_a_model_of_the_catalogue_is_refused_with_its_reason(
    answer: Infeasible, cause: Cause, words: str
) -> None:
    refused = told(answer)
    assert refused.cause is cause
    assert words in refused.why


@pytest.mark.parametrize(
    ("neurons", "draining", "cause"),
    [
        ((neuron("n", 10_000),), (), Cause.UNKNOWN),
        ((neuron("n", 10_000), NEVER_HEARD_OF), (), Cause.UNHEALTHY),
        ((), (), Cause.UNHEALTHY),
        ((neuron("n", 10_000, has=[on("b")], healthy=False),), (), Cause.UNKNOWN),
        ((neuron("n", 10_000, has=[on("a")], healthy=False), neuron("o")), (), Cause.UNHEALTHY),
        ((neuron("n", 10_000, has=[on("a")]),), ("n",), Cause.DRAINING),
        ((neuron("n", 10_000, has=[on("a", servable=False)]),), (), Cause.UNSERVABLE),
        ((neuron("n", 10_000, has=[on("a", status=Status.UNLOADED)]),), (), Cause.NOWHERE),
    ],
)
def test_a_model_that_only_neurons_may_know_is_unknown_only_when_all_were_heard(
    neurons: tuple[NeuronView, ...], draining: tuple[str, ...], cause: Cause
) -> None:
    """A 404 makes clients give a model up, so it must not come of a neuron that is merely late."""
    assert told(Infeasible(Kind.UNKNOWN), *neurons, draining=draining).cause is cause


def test_a_model_without_an_address_is_not_said_to_be_ill() -> None:
    view = neuron("n", 10_000, has=[on("a")])
    lost = msgspec.structs.replace(view.models[A], base_url=None, unaddressed=20)
    lacking = msgspec.structs.replace(view, models={A: lost})
    assert "does not say at which address" in told(Infeasible(Kind.UNKNOWN), lacking).why
