"""One task per neuron: ask, fold the answer into the picture, put it on the board, wait.

Owns when a neuron is polled, and what is logged about it: changes only. Refuses to know how it is
asked (neuron.py) and what its health means for requests (routing.py).
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import trio

from cortexd.fleet.engines.controls import control_of
from cortexd.fleet.load_calls import shown
from cortexd.fleet.neuron import KEPT_SECONDS, Control, PollFailed
from cortexd.fleet.view import Missed, NeuronName, NeuronView, Report, fold

if TYPE_CHECKING:
    from cortexd.config.schema import Neuron, Polling
    from cortexd.fleet.board import Board
    from cortexd.fleet.pool import Pool

BREATH_SECONDS = 0.2
"""The least time from the start of one poll of a neuron to the start of the next."""

log = logging.getLogger("cortexd.fleet")


async def run_poller(
    neuron: Neuron,
    board: Board,
    pool: Pool,
    polling: Polling,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Poll one neuron for ever: at once, then every interval and whenever the board has a doubt.

    Started once the first poll is on the board, answered or missed. Ends only by cancellation.
    Nothing that a neuron says or does raises here.
    """
    name = NeuronName(neuron.name)
    doubt = _Doubt()
    board.watch(name, doubt.raise_now)
    control = control_of(neuron, pool, timeout_seconds=polling.timeout_seconds)
    try:
        while True:
            began = trio.current_time()
            doubt.clear()
            control.forget_endpoints(board.take_doubted(name))
            await _poll(name, control, board, polling.misses_to_unhealthy)
            task_status.started()
            task_status = trio.TASK_STATUS_IGNORED
            with trio.move_on_at(began + polling.interval_seconds):
                await doubt.raised()
            await trio.sleep_until(began + BREATH_SECONDS)
    finally:
        with trio.move_on_after(1, shield=True):  # it holds no connection: this does not wait
            await control.aclose()


class _Doubt:
    """An event that can be used again and again, for one waiting task."""

    def __init__(self) -> None:
        self._event = trio.Event()

    def raise_now(self) -> None:
        """Wake who waits; or let the next wait end at once, unless cleared before."""
        self._event.set()

    def clear(self) -> None:
        """From now on, only new doubts count."""
        self._event = trio.Event()

    async def raised(self) -> None:
        """Wait for a doubt."""
        await self._event.wait()


async def _poll(name: NeuronName, control: Control, board: Board, misses_max: int) -> None:
    before = board.view.neurons[name]
    report: Report
    try:
        report = await control.poll()
    except PollFailed as failed:
        report = Missed(failed.reason)
    if board.view.neurons[name] is not before:
        # What became known meanwhile may be newer than this answer: a model that was listed, and
        # unloaded before the rest of it came. Who made it known has asked for the next poll.
        return
    after = fold(before, report, misses_to_unhealthy=misses_max)
    if isinstance(report, Missed) and not after.healthy:
        control.forget()
    board.publish(after)
    _tell(before, after, misses_max)


def _tell(before: NeuronView, after: NeuronView, misses_max: int) -> None:
    """Log what has changed. An error says what to do."""
    if after.misses == 0:
        _tell_what_is_withheld(before, after)
        _tell_who_has_no_address(before, after)
        if not before.healthy or before.misses:
            log.info(
                "event=neuron_healthy neuron=%s models=%d after_misses=%d",
                after.name,
                len(after.models),
                before.misses,
            )
    elif after.misses == misses_max:
        log.error(
            'event=neuron_unhealthy neuron=%s endpoint=%s misses=%d reason="%s" '
            'do="see whether it runs, and whether its endpoint in the configuration is right"',
            after.name,
            after.endpoint,
            after.misses,
            after.reason,
        )
    elif after.misses == 1:
        log.warning('event=neuron_missed neuron=%s reason="%s"', after.name, after.reason)


def _tell_what_is_withheld(before: NeuronView, after: NeuronView) -> None:
    if after.undiscovered and not before.undiscovered:
        log.warning(
            'event=neuron_undiscovered neuron=%s reason="%s" '
            'do="mend what it answers there: nothing is loaded on cards that are not known"',
            after.name,
            after.undiscovered,
        )
    for call in set(after.withheld).difference(before.withheld):
        log.warning(
            "event=neuron_withholds neuron=%s call=%s kept_seconds=%d "
            'do="see why it does not answer that in time: what it told there last counts for now"',
            after.name,
            call,
            KEPT_SECONDS,
        )


def _tell_who_has_no_address(before: NeuronView, after: NeuronView) -> None:
    for model in after.models.values():
        known = before.models.get(model.id)
        if model.unaddressed and not (known and known.unaddressed):
            log.warning(
                "event=address_unknown neuron=%s model=%s "
                'do="if it stays so, see what the neuron answers to /models/{id}/endpoint"',
                after.name,
                shown(model.id),
            )
