"""The fleet as the rest of the daemon meets it: a request asks for its turn, and is told.

Owns the one task in which the state machine's time passes and its orders are carried out, and the
waiting of requests. All decisions are the state machine's (dispatcher.py, outcomes.py). Refuses to
know HTTP, dialects and budgets.
"""

from __future__ import annotations

from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING

import trio

from cortexd.fleet.curiosity import Curiosity
from cortexd.fleet.dispatcher import Dispatcher
from cortexd.fleet.feasibility import feasible_on
from cortexd.fleet.limits import KnownLimits
from cortexd.fleet.lines import Waiting, Wanted, patience_of
from cortexd.fleet.loader import LOAD_SECONDS, Loader
from cortexd.fleet.orders import Load
from cortexd.fleet.outcomes import Outcomes
from cortexd.fleet.parts import Parts, parts_of
from cortexd.fleet.serving import Serving, Unserved
from cortexd.fleet.union import Known, ModelUnion

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Set

    from cortexd.config.schema import Catalogue, Config
    from cortexd.dialects.models import ModelEntry
    from cortexd.dialects.upper_bound import ModelLimits
    from cortexd.fleet.board import Board
    from cortexd.fleet.breaker import Verdict
    from cortexd.fleet.errands import Errand
    from cortexd.fleet.observer import FleetObserver
    from cortexd.fleet.orders import Failure, Order, Why
    from cortexd.fleet.pool import Pool
    from cortexd.fleet.reports import ModelId
    from cortexd.fleet.routing import Route
    from cortexd.fleet.view import FleetView, NeuronName


ASK_AROUND_SECONDS = 10
"""Between two looks whether there is a cold model that nobody has been asked about."""


class Traffic:
    """One per daemon. What is not async is done at once, and belongs to the daemon's own thread."""

    def __init__(
        self,
        config: Config,
        catalogue: Catalogue,
        board: Board,
        observer: FleetObserver,
        *,
        started_unix_seconds: int,
    ) -> None:
        """Nothing is asked of a neuron before `run`. Models are said to be as old as the daemon."""
        self._config = config
        self._board = board
        self.parts: Parts = parts_of(config, board, observer)
        self._dispatcher = Dispatcher(self.parts, patience_of(config.waiting))
        self._outcomes = Outcomes(self.parts, self._dispatcher)
        self._limits = KnownLimits(board, self.parts.planner)
        self._union = ModelUnion(created_unix_seconds=started_unix_seconds)
        self._feasible = partial(feasible_on, pins=self.parts.planner.pins)
        self._curiosity = Curiosity()
        self._healthy: set[NeuronName] = set()
        self._somebody_new = trio.Event()
        self._stirred = trio.Event()
        self._sleeps_until_ms: int | None = None
        self._outcomes.catalogue(catalogue, _now_ms())
        board.tell(self._on_news)

    @property
    def view(self) -> FleetView:
        """The fleet as of now."""
        return self._board.view

    @property
    def catalogue(self) -> Catalogue:
        """What the operator wrote of models, as of now."""
        return self.parts.planner.catalogue

    def limits(self, model: ModelId, *, template_tokens: int) -> ModelLimits | None:
        """What is known of a model wherever it may run, and that its template adds at least so
        much; None: neither the catalogue nor a neuron knows it.
        """
        return self._limits.of(model, template_tokens=template_tokens)

    @property
    def now_ms(self) -> int:
        """The time by which the fleet goes."""
        return _now_ms()

    @property
    def waiting(self) -> dict[ModelId, int]:
        """How many requests wait for each model, where any do."""
        return self._dispatcher.waiting()

    def models(self, allowed: Collection[str] | None) -> dict[str, ModelEntry]:
        """Every name that can be asked for, of the models that are allowed (None: all)."""
        pins = self.parts.planner.pins
        if self._feasible.keywords["pins"] is not pins:
            self._feasible = partial(feasible_on, pins=pins)
        loading = frozenset((load.loading.neuron, load.loading.model) for load in self.parts.loads)
        known = Known(self.view, self.catalogue, self._feasible, loading, self._curiosity.known)
        return self._union.entries(known, allowed=allowed)

    def adopt(self, catalogue: Catalogue) -> None:
        """Go by this catalogue from now on."""
        self._curiosity.keep(catalogue)
        self._outcomes.catalogue(catalogue, _now_ms())
        self._limits.forget()
        self._stir()

    async def run(
        self, pool: Pool, *, task_status: trio.TaskStatus[Loader] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Carry out what is ordered, and let time pass, until cancelled.

        What is under way then is left to the neurons: a load goes on there.
        """
        async with (
            aclosing(self._loader(pool)) as loader,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(self._ask_around, loader, name="capabilities")
            task_status.started(loader)
            while True:
                self._stirred = trio.Event()
                self._outcomes.tick(_now_ms())
                for order in self._dispatcher.take_orders():
                    self._tell(order)
                    name = f"{type(order).__name__.lower()} on {order.neuron}"
                    nursery.start_soon(partial(loader.carry_out, order), name=name)
                self._sleeps_until_ms = self._outcomes.wake_at_ms
                await self._sleep()

    def _loader(self, pool: Pool) -> Loader:
        config = self._config
        load_seconds = max(LOAD_SECONDS, config.waiting.load_seconds)
        return Loader(config.neurons, pool, config.polling, self, load_seconds=load_seconds)

    def _tell(self, order: Order) -> None:
        if isinstance(order, Load):
            model = order.spec.model
            load = self.parts.loads.get(model)
            expected_ms = 0 if load is None else load.expected_ms
            self.parts.observer.load_began(model, order.neuron, order.evict, expected_ms)

    async def _sleep(self) -> None:
        wake_at_ms = self._sleeps_until_ms
        deadline = trio.current_time() + 3600 if wake_at_ms is None else wake_at_ms / 1000
        with trio.move_on_at(deadline):
            await self._stirred.wait()
        await trio.lowlevel.checkpoint()

    async def _ask_around(self, loader: Loader) -> None:
        """Learn what models can do that are loaded nowhere."""
        curiosity = self._curiosity
        while True:
            pins = self.parts.planner.pins
            for model, name in curiosity.questions(self.view, self.catalogue, pins, _now_ms()):
                told = await loader.control(name).capabilities(model)
                curiosity.answered((model, name), told, _now_ms())
            self._somebody_new = trio.Event()
            with trio.move_on_after(ASK_AROUND_SECONDS):
                await self._somebody_new.wait()

    # Requests.

    def at_once(self, wanted: Wanted) -> Serving | None:
        """A neuron that serves the request without a wait, as nearly all are; None: see `turn`."""
        return self._dispatcher.serve(wanted, _now_ms())

    async def turn(
        self, wanted: Wanted, *, on_wait: Callable[[], Awaitable[None]]
    ) -> Serving | Unserved:
        """Wait for a neuron that serves the request now; `end` what comes of it.

        `on_wait` is awaited first if it has to wait at all. A cancel gives the place up.
        """
        answered = trio.Event()
        entered = self._dispatcher.enter(wanted, _now_ms(), answered.set)
        self._stir()
        if not isinstance(entered, Waiting):
            return entered
        try:
            await on_wait()
            await answered.wait()
        except BaseException:
            self._give_up(entered)
            raise
        assert entered.answer is not None, "it was notified of an answer"
        return entered.answer

    def elsewhere(self, wanted: Wanted, tried: Set[NeuronName]) -> Serving | None:
        """Another neuron for a request that got nothing where it was; None: none is free."""
        return self._dispatcher.elsewhere(wanted, tried, _now_ms())

    def first_byte(self, serving: Serving) -> None:
        """The client has something of its answer."""
        self._dispatcher.first_byte(serving)

    def end(self, serving: Serving, verdict: Verdict | None) -> None:
        """A request is with its neuron no more; what that proved, None: it was not sent."""
        if self._dispatcher.end(serving, verdict, _now_ms()):
            self._stir()

    def doubt(self, serving: Serving) -> None:
        """The neuron did not behave as the view says: have it polled now."""
        self._board.doubt(serving.route.neuron, serving.route.model)

    def withdraw(self, serving: Serving) -> None:
        """The neuron says that it does not have the model."""
        self._board.withdraw(serving.route.neuron, serving.route.model)

    def has_choice(self, model: ModelId) -> bool:
        """Whether more than one neuron has the model, so that it matters who read what before."""
        return len(self.parts.residents.of(model)) > 1

    def routes(self, model: ModelId) -> list[Route]:
        """To every neuron that could get a request for the model now; for questions only."""
        return self.parts.replicas.routes(model)

    # What happens.

    def is_wanted(self, order: Load) -> bool:
        """See `loader.Reports`."""
        load = self.parts.loads.get(order.spec.model)
        return load is not None and load.number == order.number

    def load_ended(self, order: Load, failure: Failure | None, *, took_ms: int) -> None:
        """See `loader.Reports`."""
        self._outcomes.load_ended(order, failure, _now_ms(), took_ms=took_ms)
        self._stir()

    def unload_ended(
        self, neuron: NeuronName, model: ModelId, why: Why, failure: Failure | None
    ) -> None:
        """See `loader.Reports`."""
        self._outcomes.unload_ended(neuron, model, why, failure, _now_ms())
        self._stir()

    def changed(self) -> None:
        """An operator changed what decisions depend on."""
        self._outcomes.changed(_now_ms())
        self._stir()

    async def errand(self, begin: Callable[[int, Callable[[], None]], Errand]) -> Errand:
        """Begin an operator's errand and wait until it is over. A cancel only ends the waiting."""
        over = trio.Event()
        errand = begin(_now_ms(), over.set)
        self._stir()
        try:
            await over.wait()
        finally:
            self.parts.errands.drop(errand)
            self._stir()
        return errand

    def _on_news(self, neuron: NeuronName) -> None:
        known = self.view.neurons[neuron]
        self._limits.heard(known)
        if known.healthy is not (neuron in self._healthy):
            self._healthy ^= {neuron}
            self._somebody_new.set()
        self._outcomes.news(neuron, _now_ms())
        self._stir()

    def _give_up(self, waiting: Waiting) -> None:
        if isinstance(waiting.answer, Serving):
            self.end(waiting.answer, None)
            return
        self._dispatcher.leave(waiting, _now_ms())
        self._stir()

    def _stir(self) -> None:
        """Wake the task if there is something for it to do, or if it would sleep for too long."""
        wake_at_ms = self._outcomes.wake_at_ms
        sooner = wake_at_ms is not None and (
            self._sleeps_until_ms is None or wake_at_ms < self._sleeps_until_ms
        )
        if sooner or self._dispatcher.has_orders:
            self._stirred.set()


def _now_ms() -> int:
    # The thousandth of a millisecond is for deadlines: 1.001 * 1000 is a little less than 1001.
    return int(trio.current_time() * 1000 + 0.001)
