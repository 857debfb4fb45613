"""The desk and its reservations, as the gateway meets them."""

import math
from pathlib import Path

import pytest
import trio
import trio.testing

from cortexd.dialects.upper_bound import Bound
from cortexd.dialects.usage import Ending, EndingKind, Seen
from cortexd.ledger.calls import Held, SettleCall, StandingsCall
from cortexd.ledger.desk import Desk, LedgerBusy, LedgerDown, Reservation
from cortexd.ledger.entries import ANONYMOUS, Cap, Refused, ReservationId, Totals
from cortexd.ledger.inbox import LETTERS_MAX, Inbox
from cortexd.ledger.journal import Journal
from tests.ledger.simulated_disk import SimulatedDisk
from tests.ledger.workbench import (
    ACCOUNT,
    CAPS,
    KEY,
    SCOPES,
    HeldSyncer,
    InlineSyncer,
    bound,
    completed,
    open_journal,
    running,
)


async def reserve(desk: Desk, prompt_tokens: int, output_tokens: int = 0) -> Reservation:
    answer = await desk.reserve(SCOPES, bound(prompt_tokens, output_tokens), request_id="req-1")
    assert isinstance(answer, Reservation)
    return answer


async def test_a_grant_tells_how_the_caps_stand_with_it_counted() -> None:
    async with running(open_journal(SimulatedDisk()), InlineSyncer()) as desk:
        reservation = await reserve(desk, 30, 10)
        assert reservation.bound == bound(30, 10)
        assert [(s.scope, s.reserved, s.available) for s in reservation.standings] == [
            (KEY, 40, 960),
            (ACCOUNT, 40, 99_960),
        ]


async def test_a_refusal_is_a_value_that_names_the_cap_that_bit() -> None:
    async with running(open_journal(SimulatedDisk()), InlineSyncer()) as desk:
        async with await reserve(desk, 900):
            answer = await desk.reserve(SCOPES, bound(101), request_id="req-2")
        assert isinstance(answer, Refused)
        assert (answer.standing.scope, answer.standing.reserved, answer.asked) == (KEY, 900, 101)


async def test_a_clamped_reservation_says_how_much_output_is_paid_for() -> None:
    wanted = Bound(100, 200, 2)
    async with (
        running(open_journal(SimulatedDisk()), InlineSyncer()) as desk,
        await reserve(desk, 700) as reservation,
    ):
        answer = await desk.reserve(SCOPES, wanted, request_id="r2", least=Bound(100, 99, 2))
        assert isinstance(answer, Reservation)
        async with answer as clamped:
            assert clamped.bound == Bound(100, 100, 2)
            assert clamped.standings[0].available == 0
        refused = await desk.reserve(SCOPES, wanted, request_id="r3", least=Bound(100, 101, 2))
        assert isinstance(refused, Refused)
        assert refused.asked == 302
        assert reservation.bound == bound(700)


async def test_what_a_shadow_would_have_refused_is_told_with_the_grant() -> None:
    shadow = Cap(KEY, 100, shadow=True)
    async with (
        running(open_journal(SimulatedDisk(), [shadow]), InlineSyncer()) as desk,
        await reserve(desk, 100) as fits,
        await reserve(desk, 1) as more,
    ):
        assert fits.would_refuse is None
        assert more.would_refuse is not None
        assert more.would_refuse.standing == fits.standings[0]


async def test_a_request_within_the_cap_is_charged_what_it_used_at_once() -> None:
    """Visible before the client has read the end of its answer, not when the disk has it."""
    async with running(open_journal(SimulatedDisk()), InlineSyncer()) as desk:
        async with await reserve(desk, 30, 10) as reservation:
            assert reservation.charge is None
            reservation.dispatched = True
            reservation.ending = completed(12, 3)
        assert reservation.charge is not None
        assert (reservation.charge.tokens, reservation.charge.why) == (15, "settle")
        standings = await desk.standings(SCOPES)
        assert [(s.spent, s.reserved) for s in standings] == [(15, 0), (15, 0)]


async def test_what_never_reached_a_neuron_is_released() -> None:
    async with running(open_journal(SimulatedDisk()), InlineSyncer()) as desk:
        async with await reserve(desk, 30) as reservation:
            pass
        assert reservation.charge is not None
        assert (reservation.charge.tokens, reservation.charge.why) == (0, "release")


async def dispatch_and_raise(reservation: Reservation) -> None:
    async with reservation:
        reservation.dispatched = True
        raise RuntimeError("neuron")


async def test_leaving_by_an_exception_settles_and_lets_it_pass() -> None:
    async with running(open_journal(SimulatedDisk()), InlineSyncer()) as desk:
        reservation = await reserve(desk, 30, 5)
        with pytest.raises(RuntimeError, match="neuron"):
            await dispatch_and_raise(reservation)
        assert reservation.charge is not None
        assert (reservation.charge.tokens, reservation.charge.why) == (35, "unknown")


async def test_a_neuron_that_refused_costs_nothing_and_one_that_failed_does() -> None:
    async with running(open_journal(SimulatedDisk()), InlineSyncer()) as desk:
        for kind in (EndingKind.NEURON_REFUSED, EndingKind.NEURON_FAILED):
            async with await reserve(desk, 30) as reservation:
                reservation.dispatched = True
                reservation.ending = Ending(kind, False, None, Seen(), False)
        assert (await desk.standings((KEY,)))[0].spent == 30


async def test_leaving_under_cancellation_settles_all_the_same() -> None:
    async with running(open_journal(SimulatedDisk()), InlineSyncer()) as desk:
        with trio.CancelScope() as scope:
            async with await reserve(desk, 30) as reservation:
                scope.cancel()
                await trio.lowlevel.checkpoint()
        assert scope.cancelled_caught
        assert reservation.charge is not None
        assert (await desk.standings((KEY,)))[0].reserved == 0


async def test_leaving_a_reservation_again_charges_nothing_more() -> None:
    async with running(open_journal(SimulatedDisk()), InlineSyncer()) as desk:
        reservation = await reserve(desk, 30)
        for _ in range(2):
            async with reservation:
                reservation.dispatched = True
        (standing,) = await desk.standings((KEY,))
        assert (standing.spent, standing.reserved) == (30, 0)


async def test_entering_a_reservation_is_no_checkpoint() -> None:
    """A cancellation felt between the grant and the body would leave it open for ever."""
    async with running(open_journal(SimulatedDisk()), InlineSyncer()) as desk:
        with trio.CancelScope() as scope:
            reservation = await reserve(desk, 30)
            scope.cancel()
            async with reservation as entered:
                assert entered is reservation
        assert not scope.cancelled_caught or reservation.charge is not None
        assert (await desk.standings((KEY,)))[0].reserved == 0


async def test_scopes_without_a_cap_are_granted_everything_and_left_out_of_standings() -> None:
    async with running(open_journal(SimulatedDisk()), InlineSyncer()) as desk:
        answer = await desk.reserve((ANONYMOUS,), bound(10**9), request_id="req-1")
        assert isinstance(answer, Reservation)
        assert answer.standings == ()
        assert await desk.standings((ANONYMOUS, KEY)) == await desk.standings((KEY,))
        async with answer:
            pass


async def test_twenty_requests_on_a_cap_of_a_hundred_are_served_until_it_is_spent() -> None:
    served = 0
    async with running(open_journal(SimulatedDisk(), [Cap(KEY, 100)])) as desk:
        for number in range(20):
            answer = await desk.reserve((KEY,), bound(2, 23), request_id=f"r{number}")
            if isinstance(answer, Refused):
                assert answer.fits_in_ms is None
                continue
            async with answer as reservation:
                reservation.dispatched = True
                reservation.ending = completed(2, 13)
                served += 1
        (standing,) = await desk.standings((KEY,))
    assert served == 6
    assert standing.spent == 90


async def test_too_many_calls_in_flight_are_told_that_the_ledger_is_busy() -> None:
    inbox = Inbox()
    desk = Desk(inbox, lambda model: 0, calls_max=2)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(desk.standings, (KEY,))
        nursery.start_soon(desk.standings, (KEY,))
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(LedgerDown, match="busy"):
            await desk.reserve(SCOPES, bound(1), request_id="r")
        for call in inbox.take(9):
            assert isinstance(call, StandingsCall)
            call.answer(())
    with trio.move_on_after(0) as scope:  # waits again, is not told to go away
        await desk.standings((KEY,))
    assert scope.cancelled_caught


async def test_a_settlement_gets_through_however_many_calls_are_waiting() -> None:
    syncer = HeldSyncer()
    async with (
        running(open_journal(SimulatedDisk()), syncer, calls_max=1) as desk,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(release_one, syncer)
        reservation = await reserve(desk, 30)
        nursery.start_soon(reserve, desk, 40)
        await syncer.wait_held()
        with pytest.raises(LedgerDown, match="busy"):
            await desk.standings((KEY,))
        async with reservation:
            pass
        assert reservation.charge is not None
        syncer.release()


async def test_an_overrun_that_finds_the_inbox_full_is_settled_like_any_other() -> None:
    inbox = Inbox()
    for _ in range(LETTERS_MAX):
        inbox.put(StandingsCall((KEY,)))
    with pytest.raises(LedgerBusy):
        inbox.put(StandingsCall((KEY,)))
    reservation = Reservation(inbox, Held(ReservationId(1), (), 30, None), bound(30))
    reservation.dispatched = True
    reservation.ending = completed(20, 20)
    assert reservation.settle() is None
    assert reservation.charge is not None
    assert reservation.charge.overrun == 10
    settlement = inbox.take(math.inf)[-1]
    assert isinstance(settlement, SettleCall)
    assert settlement.charge.tokens == 40


async def release_one(syncer: HeldSyncer) -> None:
    await syncer.wait_held()
    syncer.release()


async def test_a_closed_desk_is_down_and_learning_there_is_silent() -> None:
    async with running(open_journal(SimulatedDisk()), InlineSyncer()) as desk:
        await desk.aclose()
        with pytest.raises(LedgerDown):
            await desk.standings((KEY,))
        await desk.learn("model", 3)
        assert desk.template_tokens("model") == 0


async def test_the_whole_ledger_works_in_a_real_directory(tmp_path: Path) -> None:
    journal = Journal.open(str(tmp_path), CAPS)
    async with running(journal) as desk, await reserve(desk, 30) as reservation:
        reservation.dispatched = True
        reservation.ending = completed(12, 3)
    journal.close()
    again = Journal.open(str(tmp_path), CAPS)
    async with running(again) as desk:
        assert [s.spent for s in await desk.standings(SCOPES)] == [15, 15]
    again.close()


async def test_a_scope_without_a_cap_has_totals_all_the_same() -> None:
    async with running(open_journal(SimulatedDisk()), InlineSyncer()) as desk:
        granted = await desk.reserve((ANONYMOUS,), bound(30), request_id="req-3")
        assert isinstance(granted, Reservation)
        async with granted as reservation:
            assert await desk.totals(ANONYMOUS) == Totals(spent=0, reserved=30)
            reservation.dispatched = True
            reservation.ending = completed(12, 3)
        assert await desk.totals(ANONYMOUS) == Totals(spent=15, reserved=0)
        assert await desk.standings((ANONYMOUS,)) == ()
