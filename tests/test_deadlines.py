"""Many clocks and one task: everybody is told in time, nobody twice, and nobody who has gone."""

from __future__ import annotations

import trio
import trio.testing

from cortexd.deadlines import LATE_SECONDS_EACH, Deadlines


class Waiter:
    """Notes when its time was up; then does what else is to happen."""

    def __init__(self, then: Deadlines | None = None, *others: Waiter) -> None:
        self.told: list[float] = []
        self._deadlines = then
        self._others = others

    def expired(self) -> None:
        """Note the time, and end the waiting of the others."""
        self.told.append(trio.current_time())
        for other in self._others:
            assert self._deadlines is not None
            self._deadlines.stop(other)


async def passing(seconds: float) -> None:
    """Let virtual time pass."""
    with trio.move_on_after(seconds):
        await trio.sleep_forever()


async def test_everybody_is_told_at_their_own_time_in_whatever_order_they_came(
    autojump_clock: trio.testing.MockClock, deadlines: Deadlines
) -> None:
    waits = (300.0, 10.0, 75.0, 0.5, 10.0, 600.0)
    waiters = [Waiter() for _ in waits]
    for waiter, seconds in zip(waiters, waits, strict=True):
        deadlines.start(waiter, seconds)
        await trio.testing.wait_all_tasks_blocked()
    await passing(1000)
    for waiter, seconds in zip(waiters, waits, strict=True):
        assert len(waiter.told) == 1
        assert seconds <= waiter.told[0] <= seconds + len(waits) * LATE_SECONDS_EACH


async def test_who_has_stopped_is_not_told_and_who_starts_again_begins_anew(
    autojump_clock: trio.testing.MockClock, deadlines: Deadlines
) -> None:
    gone, patient = Waiter(), Waiter()
    deadlines.start(gone, 5)
    deadlines.start(patient, 5)
    await passing(4)
    deadlines.stop(gone)
    deadlines.stop(gone)
    deadlines.start(patient, 5)
    await passing(4)
    assert patient.told == []
    await passing(100)
    assert (gone.told, len(patient.told)) == ([], 1)
    assert 9 <= patient.told[0] < 9.1


async def test_nobody_is_told_whom_another_end_of_the_same_moment_has_ended(
    autojump_clock: trio.testing.MockClock, deadlines: Deadlines
) -> None:
    other = Waiter()
    first = Waiter(deadlines, other)
    deadlines.start(first, 1)
    deadlines.start(other, 1)
    await passing(2)
    assert (len(first.told), other.told) == (1, [])


async def test_waits_that_come_and_go_wake_nobody(
    mock_clock: trio.testing.MockClock, deadlines: Deadlines
) -> None:
    """What every request does costs a look only where it is due before all that are known."""
    waiter, looks = Waiter(), 0

    class Look(trio.abc.Instrument):
        def before_task_step(self, task: trio.lowlevel.Task) -> None:
            nonlocal looks
            looks += task.name == "deadlines"

    deadlines.start(waiter, 10)
    await trio.testing.wait_all_tasks_blocked()
    trio.lowlevel.add_instrument(Look())
    for _ in range(1000):
        mock_clock.jump(0.001)
        deadlines.start(waiter, 10)
        await trio.lowlevel.checkpoint()
        deadlines.stop(waiter)
    assert looks == 0
