"""Bodies while they are read: what is kept, what is let go, and what all of them may take."""

import pytest

from cortexd.dialects.refusals import Refusal, RefusalKind
from cortexd.gateway.bodies import Body, BodyLimits, BodyRoom

LIMITS = BodyLimits(body_bytes_max=10, bodies_bytes_max=15, body_seconds=1)


@pytest.fixture
def room() -> BodyRoom:
    """Nothing is in it."""
    return BodyRoom(LIMITS)


def kind(body: Body) -> RefusalKind | None:
    """Why a body is refused."""
    return body.refusal.kind if body.refusal is not None else None


def test_a_body_is_its_pieces_and_its_room_comes_back(room: BodyRoom) -> None:
    body = Body(room, refusal=None, declared=10)
    for piece in (b"hello", b"", b"world"):
        body.take(piece)
    assert (body.whole(), room.bytes_kept) == (b"helloworld", 10)
    body.release()
    body.release()
    assert room.bytes_kept == 0


def test_what_was_kept_is_let_go_when_the_limit_is_passed(room: BodyRoom) -> None:
    body = Body(room, refusal=None)
    body.take(b"x" * 10)
    assert kind(body) is None
    body.take(b"x")
    assert (kind(body), body.whole()) == (RefusalKind.REQUEST_TOO_LARGE, b"")


def test_a_declared_length_is_refused_before_a_byte_of_it_has_come(room: BodyRoom) -> None:
    assert kind(Body(room, refusal=None, declared=10)) is None
    assert kind(Body(room, refusal=None, declared=11)) is RefusalKind.REQUEST_TOO_LARGE


def test_nobody_waits_for_the_end_past_twice_the_limit(room: BodyRoom) -> None:
    body = Body(room, refusal=None)
    body.take(b"x" * 20)
    assert not body.is_beyond
    body.take(b"x")
    assert body.is_beyond


def test_the_first_refusal_stays_and_nothing_is_kept_behind_it(room: BodyRoom) -> None:
    body = Body(room, refusal=Refusal(RefusalKind.INVALID_API_KEY, "no"), declared=99)
    body.take(b"x" * 5)
    body.took_too_long()
    assert (kind(body), room.bytes_kept) == (RefusalKind.INVALID_API_KEY, 0)


def test_bodies_share_their_room(room: BodyRoom) -> None:
    first, second = Body(room, refusal=None), Body(room, refusal=None)
    first.take(b"x" * 10)
    second.take(b"x" * 5)
    assert kind(second) is None
    second.take(b"x")
    assert kind(second) is RefusalKind.OVERLOADED
    first.release()
    second.release()
    third = Body(room, refusal=None)
    third.take(b"x" * 10)
    assert kind(third) is None
