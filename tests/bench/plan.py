"""How much is measured: a full run, a quick one, and what tests take."""

import msgspec


class Plan(msgspec.Struct, frozen=True):
    """Sizes of everything. Each round measures all that is compared, one after the other.

    `seconds` is one window of load. `streams` are open at the same time in the part on memory.
    `entries` are in the journals that are opened, and one is written to for `roll_seconds`.
    `fleets`: neurons and models of the catalogue, the smallest fleet first.
    """

    rounds: int
    seconds: float
    connections: tuple[int, ...]
    stream_connections: tuple[int, ...]
    streams: int
    stream_rounds: int
    paced_seconds: float
    starts: int
    callers: tuple[int, ...]
    entries: int
    roll_seconds: float
    fleets: tuple[tuple[int, int], ...]


FULL = Plan(
    rounds=5,
    seconds=1,
    connections=(1, 16, 64, 256),
    stream_connections=(1, 16, 64, 256),
    streams=500,
    stream_rounds=2,
    paced_seconds=3,
    starts=3,
    callers=(1, 16, 64),
    entries=1_000_000,
    roll_seconds=8,
    fleets=((1, 1), (10, 50), (50, 200)),
)
QUICK = Plan(
    rounds=2,
    seconds=0.4,
    connections=(1, 16),
    stream_connections=(16,),
    streams=100,
    stream_rounds=1,
    paced_seconds=1,
    starts=2,
    callers=(16,),
    entries=50_000,
    roll_seconds=3,
    fleets=((1, 1), (10, 50), (50, 200)),
)
