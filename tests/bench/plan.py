"""How much is measured: a full run, a quick one, and what tests take."""

import msgspec


class Plan(msgspec.Struct, frozen=True):
    """Sizes of everything. Each round measures all that is compared, one after the other.

    `seconds` is one window of load; `paced_streams` are open at the same time, the fewest first.
    `entries` are in the journals that are opened, and one is written to for `roll_seconds`.
    `fleets`: neurons and models of the catalogue, the smallest fleet first. The rest is what grows
    behind a request: keys, neurons, models in a neuron, its own bytes, entries in the ledger.
    """

    rounds: int
    seconds: float
    connections: tuple[int, ...]
    stream_connections: tuple[int, ...]
    paced_streams: tuple[int, ...]
    stream_rounds: int
    paced_seconds: float
    starts: int
    callers: tuple[int, ...]
    entries: int
    roll_seconds: float
    fleets: tuple[tuple[int, int], ...]
    keys: tuple[int, ...]
    neurons: tuple[int, ...]
    models: tuple[int, ...]
    bodies: tuple[int, ...]
    ledgers: tuple[int, ...]


FULL = Plan(
    rounds=3,
    seconds=0.7,
    connections=(1, 16, 64, 256),
    stream_connections=(1, 16, 64),
    paced_streams=(100, 500, 1000),
    stream_rounds=1,
    paced_seconds=3,
    starts=3,
    callers=(1, 16, 64),
    entries=1_000_000,
    roll_seconds=8,
    fleets=((1, 1), (10, 50), (50, 200)),
    keys=(1, 1000, 100_000),
    neurons=(1, 10, 50),
    models=(1, 10, 200),
    bodies=(200, 4_000, 64_000, 1_000_000),
    ledgers=(1_000, 10_000_000),
)
QUICK = Plan(
    rounds=2,
    seconds=0.3,
    connections=(1, 16),
    stream_connections=(16,),
    paced_streams=(100,),
    stream_rounds=1,
    paced_seconds=1,
    starts=2,
    callers=(16,),
    entries=50_000,
    roll_seconds=3,
    fleets=((1, 1), (10, 50), (50, 200)),
    keys=(1, 1000),
    neurons=(1, 50),
    models=(1, 200),
    bodies=(200, 64_000),
    ledgers=(1_000,),
)
