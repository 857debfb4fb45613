"""Some rounds of torture, and proof that its judge convicts; `make torture` runs on from here."""

import json
import os
from collections.abc import Callable, Iterable
from hashlib import blake2b
from pathlib import Path

import pytest
import trio

from tests.support.wild_neurons import ARRIVAL, TOKENS
from tests.torture.__main__ import tasks
from tests.torture.books import Books, Rule, Violation
from tests.torture.ends import ENDS, disk_problem
from tests.torture.world import ROUNDS_PER_WORLD, World, run_world

SECONDS_MAX = 120


@pytest.mark.slow
@pytest.mark.parametrize(
    ("seed", "ends", "rounds"),
    [
        pytest.param(11, "kill", 4, id="kill"),
        pytest.param(12, "term", 1, id="terminate"),
        pytest.param(13, "second", 1, id="second daemon"),
        pytest.param(14, "full", 1, id="full disk"),
        pytest.param(15, "low", 1, id="low on room"),
    ],
)
async def test_what_was_served_is_booked_however_the_daemon_ends(
    seed: int, ends: str, rounds: int
) -> None:
    world = World.of(seed, (ends,))
    if not world.ends:
        pytest.skip(f"NO DISK WAS FILLED: {disk_problem()}")
    with trio.fail_after(SECONDS_MAX):
        tally = await run_world(world, rounds)
    assert tally[f"ended by {ends}"] == rounds
    assert 0 < tally["served tokens"] <= tally["charged tokens"] <= tally["reserved tokens"] * 2
    assert tally["dispatches"], "a load that is none"


def test_every_end_is_tried_where_it_can_be() -> None:
    assert World.of(1, tuple(ENDS)).ends == (
        tuple(ENDS) if os.geteuid() == 0 else ("kill", "term", "second")
    )


def test_a_run_has_exactly_the_rounds_that_were_asked_for() -> None:
    made = tasks(7, 2 * ROUNDS_PER_WORLD + 3, ("kill",))
    assert [task.seed for task in made] == [7, 8, 9]
    assert [task.rounds for task in made] == [ROUNDS_PER_WORLD, ROUNDS_PER_WORLD, 3]


# The judge. A ledger directory is written by hand, right but for one thing.

SALT = b"12345678"
HOLD = {"k": "hold", "t": 1000, "i": 1, "w": ["acct:a", "key:a"], "a": 50, "rid": "r1"}
CLOSE = {"k": "close", "t": 2000, "i": 1, "a": 30, "y": "settle"}
SERVED = [(ARRIVAL, "r1", 1, 1), (TOKENS, "r1", 2, 10), (TOKENS, "r1", 3, 20)]
RULES = (Rule("key:a", 100), Rule("acct:a", 70, window_ms=3000))

Entry = dict[str, object]


def segment(entries: Iterable[Entry], *, number: int = 1, n: int = 0, prev: str = "") -> bytes:
    """A whole segment, as the manual describes it."""
    lines: list[Entry] = [
        {"fmt": 2, "seg": number, "n": n, "salt": SALT.hex(), "prev": prev},
        {"snap": {}},
    ]
    lines += [{**entry, "n": n + 1 + index, "d": n} for index, entry in enumerate(entries)]
    data = b""
    for line in lines:
        payload = json.dumps(line).encode()
        data += blake2b(payload, digest_size=8, key=SALT).hexdigest().encode()
        data += b"\t" + payload + b"\n"
    return data


def books_of(
    directory: Path,
    *lives: Iterable[Entry],
    served: Iterable[tuple[str, str, int, int]] = (),
    spoil: Callable[[bytes], bytes] = lambda data: data,
) -> Books:
    """Books over hand-written segments, one for each life, all judged."""
    log = directory / "served"
    log.write_text("".join(f"{kind}\ta\t{rid}\t{at}\t{n}\n" for kind, rid, at, n in served))
    books = Books(directory, log, RULES)
    n, prev = 0, ""
    for number, life in enumerate(lives, start=1):
        entries = list(life)
        data = spoil(segment(entries, number=number, n=n, prev=prev))
        (directory / f"seg-{number:08}.jsonl").write_bytes(data)
        n, prev = n + len(entries), blake2b(data, digest_size=16).hexdigest()
        books.close_life()
    return books


def test_the_judge_lets_books_pass_that_are_in_order(tmp_path: Path) -> None:
    books = books_of(tmp_path, [HOLD, CLOSE], served=SERVED)
    assert (books.counted("key:a"), books.open_requests) == (30, 0)
    assert books.totals["served tokens"] == books.totals["charged tokens"] == 30


def test_the_judge_follows_a_ghost_to_its_charge(tmp_path: Path) -> None:
    ghost: Entry = {"k": "ghost", "t": 1500, "i": 1, "x": 1600}
    crash: Entry = {**CLOSE, "a": 50, "y": "crash"}
    books = books_of(tmp_path, [HOLD], [ghost], [crash], served=SERVED)
    assert (books.counted("key:a"), books.totals["closed by crash"]) == (50, 1)


@pytest.mark.parametrize(
    ("lives", "served", "verdict"),
    [
        ([[HOLD, {**CLOSE, "a": 29}]], SERVED, "was served 30, and is booked as"),
        ([[HOLD, CLOSE, {**CLOSE, "t": 2001}]], [], "was closed, and was not open"),
        ([[HOLD, {**HOLD, "i": 2}]], [], "was made twice"),
        ([[HOLD, {**HOLD, "rid": "r2"}]], [], "was made twice"),
        ([[HOLD], [CLOSE]], [], "forgotten by the next life"),
        ([[CLOSE]], [], "was closed, and was not open"),
        ([[]], SERVED, "is not in the journal"),
        ([[HOLD]], [(ARRIVAL, "r1", 1, 0)], "only 0 was durable"),
        ([[{**HOLD, "a": 71}]], [], "71 is reserved and charged within 3000 ms, its cap is 70"),
        (
            [[{**HOLD, "a": 60}, {**CLOSE, "a": 60}, {**HOLD, "t": 5000, "i": 2, "rid": "r2"}]],
            [],
            "110 is reserved and charged ever, its cap is 100",
        ),
        (
            [[HOLD, {**CLOSE, "a": 50}, {**HOLD, "t": 4999, "i": 2, "rid": "r2", "a": 21}]],
            [],
            "71 is reserved and charged within 3000 ms, its cap is 70",
        ),
        ([[HOLD, {**CLOSE, "a": 99}]], [(TOKENS, "r1", 1, 71)], "71 was really served within"),
        ([[HOLD, {"k": "ghost", "t": 1, "i": 9, "x": 2}]], [], "is a ghost, and not open"),
    ],
)
def test_the_judge_convicts(
    tmp_path: Path,
    lives: list[list[Entry]],
    served: list[tuple[str, str, int, int]],
    verdict: str,
) -> None:
    with pytest.raises(Violation, match=verdict):
        books_of(tmp_path, *lives, served=served)


@pytest.mark.parametrize(
    ("spoil", "verdict"),
    [
        (lambda data: data.replace(b'"a": 50', b'"a": 51'), "line 3 is not proven"),
        (lambda data: data[:-9] + b"\n", "line 4 is not proven"),
    ],
)
def test_the_judge_believes_no_line_that_is_not_proven(
    tmp_path: Path, spoil: Callable[[bytes], bytes], verdict: str
) -> None:
    with pytest.raises(Violation, match=verdict):
        books_of(tmp_path, [HOLD, CLOSE], spoil=spoil)


def test_a_torn_line_at_the_end_is_no_entry(tmp_path: Path) -> None:
    books = books_of(tmp_path, [HOLD, CLOSE], spoil=lambda data: data[:-9])
    assert (books.open_requests, books.totals["torn tails"]) == (1, 1)


def test_the_judge_sees_a_chain_that_is_broken(tmp_path: Path) -> None:
    books = books_of(tmp_path, [HOLD, CLOSE])
    (tmp_path / "seg-00000002.jsonl").write_bytes(segment([], number=2, n=2, prev="0" * 32))
    with pytest.raises(Violation, match="not chained"):
        books.close_life()
