"""Machines that are broken on purpose: what a simulator does not notice, it does not check.

Each entry names a way to break the state machine, and the rules of which one must notice it.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import msgspec

from cortexd.fleet.dispatcher import Dispatcher
from cortexd.fleet.drains import Drains
from cortexd.fleet.errands import Errands
from cortexd.fleet.lines import Line, Waiting
from cortexd.fleet.loads import Loads
from cortexd.fleet.planner import Planner
from cortexd.fleet.residents import Residents
from cortexd.fleet.routing import Replicas
from cortexd.fleet.situation import Books, Situation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Break(msgspec.Struct, frozen=True):
    """Put `instead` (made of what was there) in the place of a method; one of `rules` notices.

    `seeds`: of worlds in which it shows.
    """

    owner: Any
    name: str
    instead: Callable[[Any], Any]
    rules: frozenset[str]
    seeds: tuple[int, ...]

    @contextmanager
    def applied(self) -> Iterator[None]:
        """While this lasts, the machine is broken."""
        before = self.owner.__dict__[self.name]
        setattr(self.owner, self.name, self.instead(before))
        try:
            yield
        finally:
            setattr(self.owner, self.name, before)


def _nothing(before: Any) -> Any:
    return lambda *_, **__: None


def _false(before: Any) -> Any:
    return lambda *_, **__: False


def _unused_is_all(before: Any) -> Any:
    """Placement is told that nothing is in flight."""

    def situation(self: Planner, *args: Any, **more: Any) -> Situation:
        seen: Situation = before(self, *args, **more)
        uses = {
            residency: msgspec.structs.replace(use, in_flight=0, leased=False)
            for residency, use in seen.uses.items()
        }
        return msgspec.structs.replace(seen, uses=uses)

    return situation


def _loads_are_not_counted(before: Any) -> Any:
    """Placement does not see the memory of loads under way."""

    def situation(self: Planner, *args: Any, **more: Any) -> Situation:
        seen: Situation = before(self, *args, **more)
        return msgspec.structs.replace(seen, loading=())

    return situation


def _load_twice(before: Any) -> Any:
    """A load that is under way is not known."""

    def get(self: Loads, model: Any) -> Any:
        self._under_way.pop(model, None)

    return get


def _at_once(before: Any) -> Any:
    """The residency of a model, and its turn, count for nothing."""

    def due(self: Drains, model: Any, *args: Any, **more: Any) -> Any:
        return frozenset(
            stay.residency for stay in self._residents if stay.in_flight == 0 and stay.admits
        )

    return due


def _never(before: Any) -> Any:
    return lambda *_, **__: frozenset()


def _the_last_one(before: Any) -> Any:
    """Turns go to whoever came last."""

    def take(self: Line, now_ms: int) -> Any:
        last = list(self)[-1]
        self.remove(last, now_ms)
        return last

    return take


def _keep_leases(before: Any) -> Any:
    """A lease is not given back when its request ends."""

    def end(self: Dispatcher, serving: Any, verdict: Any, now_ms: int) -> Any:
        lease, serving.lease = serving.lease, None
        matters = before(self, serving, verdict, now_ms)
        serving.lease = lease
        return matters

    return end


def _say_nothing(before: Any) -> Any:
    """The end of a request is said to matter to nobody."""

    def end(self: Dispatcher, *args: Any) -> bool:
        before(self, *args)
        return False

    return end


def _see_once(before: Any) -> Any:
    """Where a model can serve is not worked out again once it is known."""

    def see(self: Replicas, models: Any) -> None:
        before(self, [model for model in models if not self.is_served(model)])

    return see


def _answer_twice(before: Any) -> Any:
    """Whoever is told is told again."""

    def end_with(self: Any, answer: Any) -> None:
        before(self, answer)
        self.notify()

    return end_with


def _nobody_is_leased(before: Any) -> Any:
    return lambda self, is_leased: before(self, lambda _: False)


def _no_timer(before: Any) -> Any:
    return property(lambda self: None)


BREAKS: Final[dict[str, Break]] = {
    "requests in flight protect nobody": Break(
        Planner,
        "situation",
        _unused_is_all,
        frozenset({"nothing_in_use_leaves", "the_machine_trusts_itself"}),
        seeds=(3, 4, 9),
    ),
    "loads under way need no memory": Break(
        Planner,
        "situation",
        _loads_are_not_counted,
        frozenset({"memory_is_promised_once", "what_was_promised_is_there"}),
        seeds=(3, 4, 8),
    ),
    "a load under way is forgotten": Break(
        Loads,
        "get",
        _load_twice,
        frozenset({"one_load_per_model", "nothing_in_use_leaves"}),
        seeds=(1, 3, 5),
    ),
    "whoever waits protects nothing": Break(
        Residents,
        "uses",
        _nobody_is_leased,
        frozenset({"nothing_in_use_leaves", "only_the_idle_are_unloaded"}),
        seeds=(8, 12, 16),
    ),
    "leases are not given back": Break(
        Dispatcher,
        "end",
        _keep_leases,
        frozenset({"counts_are_right", "nothing_is_left_over"}),
        seeds=(3, 4, 5),
    ),
    "whoever is idle leaves at once": Break(
        Drains,
        "due",
        _at_once,
        frozenset({"nobody_leaves_before_its_time", "nothing_in_use_leaves"}),
        seeds=(2, 10, 12),
    ),
    "hot models never give way": Break(
        Drains, "due", _never, frozenset({"the_cold_get_their_turn"}), seeds=(14, 19, 29)
    ),
    "drains are kept": Break(
        Planner,
        "keep_drains",
        _nothing,
        frozenset({"drains_are_for_somebody"}),
        seeds=(83,),
    ),
    "turns go to the last": Break(
        Line, "take", _the_last_one, frozenset({"one_turn_of_each_other_key"}), seeds=(3, 4, 5)
    ),
    "limits do not run out": Break(
        Line,
        "take_expired",
        lambda _: lambda *_: [],
        frozenset({"it_does_not_spin"}),
        seeds=(0, 1, 3),
    ),
    "limits are not asked for": Break(
        Line,
        "deadline_ms",
        _no_timer,
        frozenset({"everyone_is_answered_in_time", "it_comes_to_rest"}),
        seeds=(1, 5, 7),
    ),
    "whoever is told is told twice": Break(
        Waiting, "end_with", _answer_twice, frozenset({"nobody_is_answered_twice"}), seeds=(0, 2, 3)
    ),
    "those who admit again are not heard of": Break(
        Residents,
        "take_reopened",
        lambda _: lambda *_: set(),
        frozenset({"nobody_waits_beside_a_free_replica"}),
        seeds=(8, 33, 46, 83),
    ),
    "breakers are not waited for": Break(
        Replicas,
        "retry_in_ms",
        _nothing,
        frozenset({"nobody_waits_beside_a_free_replica"}),
        seeds=(7, 8, 12),
    ),
    "where a model can serve stays as it was": Break(
        Replicas,
        "see",
        _see_once,
        frozenset({"routes_are_of_now", "nothing_raises"}),
        seeds=(0, 1, 3),
    ),
    "nobody hears that a request is over": Break(
        Dispatcher,
        "end",
        _say_nothing,
        frozenset({"what_matters_is_said"}),
        seeds=(0, 1, 3),
    ),
    "idle models stay": Break(
        Planner, "unload_idle", _nothing, frozenset({"the_idle_go"}), seeds=(0, 1, 3)
    ),
    "an operator may unload anything": Break(
        Errands,
        "_hindrance",
        _nothing,
        frozenset({"only_who_can_is_ordered", "nothing_in_use_leaves"}),
        seeds=(6, 21, 23),
    ),
    "what is being loaded is not engaged": Break(
        Books,
        "is_engaged",
        _false,
        frozenset({"nothing_in_use_leaves", "the_machine_trusts_itself"}),
        seeds=(0, 1, 3),
    ),
}
