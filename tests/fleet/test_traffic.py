"""The fleet as a request meets it: what is known of a model now, and who is woken by what."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import trio
import trio.testing

from cortexd.config.schema import Catalogue, CatalogueModel, Config, Limit, Neuron
from cortexd.dialects.upper_bound import ModelLimits
from cortexd.fleet.board import Board
from cortexd.fleet.breaker import Verdict
from cortexd.fleet.lines import Wanted
from cortexd.fleet.observer import Nobody
from cortexd.fleet.reports import ModelId
from cortexd.fleet.serving import Serving
from cortexd.fleet.traffic import Traffic
from cortexd.fleet.view import NeuronName, NeuronView, Status
from tests.fleet.situations import neuron, on

if TYPE_CHECKING:
    from cortexd.fleet.errands import Errand
    from cortexd.fleet.pool import Pool
    from cortexd.fleet.view import ModelView

A, B, N = ModelId("a"), ModelId("b"), NeuronName("n")
CARD_MB = 24_000
LARGE_MB = 20_000
WRITTEN = tuple(CatalogueModel(id, vram_mb=LARGE_MB, capabilities=("text",)) for id in "ab")


def traffic_of(*neurons: NeuronView, models: tuple[CatalogueModel, ...] = WRITTEN) -> Traffic:
    """What the gateway asks, in front of neurons that have been polled once."""
    configured = tuple(
        Neuron(each.name, each.endpoint, anthropic=each.anthropic) for each in neurons
    )
    board = Board(configured)
    traffic = Traffic(
        Config(neurons=configured), Catalogue(models), board, Nobody(), started_unix_seconds=0
    )
    for each in neurons:
        board.publish(each)
    return traffic


def limited(model: str, context: int, *, status: Status = Status.LOADED) -> tuple[ModelView, int]:
    offer = msgspec.structs.replace(on(model, status=status)[0], limit=Limit(context=context))
    return offer, 0


def known(traffic: Traffic, model: ModelId = A, *, template_tokens: int = 0) -> ModelLimits | None:
    return traffic.limits(model, template_tokens=template_tokens)


def contexts(traffic: Traffic) -> tuple[int | None, int | None]:
    limits = known(traffic)
    assert limits is not None
    return limits.context_min, limits.context_max


async def no_wait() -> None:
    raise AssertionError("a request was to be served at once")


async def serve(traffic: Traffic, model: ModelId = A) -> Serving:
    serving = await traffic.turn(Wanted(model, "key", 100), on_wait=no_wait)
    assert isinstance(serving, Serving), serving
    return serving


async def test_limits_are_what_neurons_said_last() -> None:
    """Every request asks, so that they are kept; a kept one must never be of before."""
    traffic = traffic_of(
        neuron("n", CARD_MB, has=[limited("a", 8_000)]),
        neuron("o", CARD_MB, has=[limited("a", 4_000)]),
        models=(),
    )
    publish = traffic.parts.board.publish
    assert contexts(traffic) == (4_000, 8_000)
    publish(neuron("n", CARD_MB, has=[limited("a", 2_000)]))
    assert contexts(traffic) == (2_000, 4_000)
    publish(neuron("o", CARD_MB, healthy=False, has=[limited("a", 4_000)]))
    assert contexts(traffic) == (2_000, 4_000), "it may be back"
    publish(neuron("n", CARD_MB, has=[limited("a", 1_000, status=Status.UNLOADED)]))
    assert contexts(traffic) == (1_000, 4_000), "it lists it, loaded or not"
    publish(neuron("n", CARD_MB, has=[limited("b", 1_000)]))
    assert contexts(traffic) == (4_000, 4_000)
    publish(neuron("o", CARD_MB))
    assert known(traffic) is None
    publish(neuron("o", CARD_MB, has=[limited("a", 500)]))
    assert contexts(traffic) == (500, 500)
    traffic.parts.board.withdraw(NeuronName("o"), A)
    assert known(traffic) is None


async def test_limits_are_what_the_operator_wrote_last() -> None:
    traffic = traffic_of(neuron("n", CARD_MB))
    assert known(traffic) == ModelLimits(None, None, None)
    traffic.adopt(Catalogue((CatalogueModel("a", limit=Limit(9), template_tokens=7),)))
    assert known(traffic) == ModelLimits(9, 9, None, template_tokens=7)
    assert known(traffic, B) is None
    traffic.adopt(Catalogue())
    assert known(traffic) is None


async def test_template_tokens_are_those_learned_last_and_no_less_than_the_written_ones() -> None:
    traffic = traffic_of(models=(CatalogueModel("a", template_tokens=7), CatalogueModel("b")))
    for learned, expected in ((0, 7), (8, 8), (30, 30), (0, 7), (8, 8)):
        limits = known(traffic, template_tokens=learned)
        assert limits is not None
        assert limits.template_tokens == expected
    limits = known(traffic, B)
    assert limits is not None
    assert limits.template_tokens == 0


async def test_whether_messages_go_untranslated_is_known_before_any_poll() -> None:
    written = (CatalogueModel("a"),)
    for anthropic in (False, True):
        there = msgspec.structs.replace(neuron("n", CARD_MB), anthropic=anthropic)
        limits = known(traffic_of(there, models=written))
        assert limits is not None
        assert limits.native_messages is anthropic


async def test_a_choice_is_had_once_two_neurons_have_the_model() -> None:
    traffic = traffic_of(neuron("n", CARD_MB, has=[on("a")]), neuron("o", CARD_MB, has=[on("b")]))
    assert not traffic.has_choice(A)
    traffic.parts.board.publish(neuron("o", CARD_MB, has=[on("a")]))
    assert traffic.has_choice(A)
    assert not traffic.has_choice(ModelId("unheard/of"))


async def test_who_waits_for_its_turn_gets_it_when_another_request_ends() -> None:
    traffic = traffic_of(neuron("n", CARD_MB, has=[one_at_once("a")]))
    first = await serve(traffic)
    answers = []

    async def wait() -> None:
        answers.append(await traffic.turn(Wanted(A, "key", 100), on_wait=trio.lowlevel.checkpoint))

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            assert (traffic.waiting, answers) == ({A: 1}, [])
            traffic.end(first, Verdict.WORKED)
    (second,) = answers
    assert isinstance(second, Serving)
    traffic.end(second, Verdict.WORKED)
    assert traffic.parts.residents.in_flight == 0


def one_at_once(model: str) -> tuple[ModelView, int]:
    offer, mb = on(model, mb=LARGE_MB)
    load = msgspec.structs.replace(offer.load, max_in_flight=1)
    return msgspec.structs.replace(offer, load=load), mb


async def test_who_makes_room_goes_on_as_soon_as_the_operator_wants_it_no_more(
    pool: Pool, mock_clock: trio.testing.MockClock
) -> None:
    """Nobody else need come by for that: a request that is served at once wakes nobody."""
    traffic = traffic_of(neuron("n", CARD_MB, has=[on("a", mb=LARGE_MB)]))
    stay = traffic.parts.residents.get(N, A)
    assert stay is not None
    async with trio.open_nursery() as nursery:
        await nursery.start(traffic.run, pool)
        serving = await serve(traffic)
        scope = trio.CancelScope()

        async def load_b() -> None:
            def begin(now_ms: int, over: object) -> Errand:
                return traffic.parts.errands.load(B, None, now_ms, over)  # type: ignore[arg-type]

            with scope:
                await traffic.errand(begin)

        nursery.start_soon(load_b)
        for _ in range(600):
            await trio.testing.wait_all_tasks_blocked()
            if not stay.admits:
                break
            mock_clock.jump(1)
        assert stay.draining_for == B
        scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert stay.admits
        traffic.end(serving, Verdict.WORKED)
        nursery.cancel_scope.cancel()
