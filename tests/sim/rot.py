"""Damage to what was durable: the ledger comes back as it was, or refuses to start.

Bits flip, sectors are zeroed, garbled, or hold what belongs next to them; files are cut short and
lines vanish, come twice or change places; the newest segment is lost; the hint rots. Without a
hint, the watermarks in undamaged lines are what must not be lost.
"""

import random
from collections import Counter
from collections.abc import Callable, Iterator

import msgspec

from cortexd.ledger.disk import HINT_NAME, LedgerProblem
from cortexd.ledger.opening import read_newest
from cortexd.ledger.records import place_of
from cortexd.ledger.segment import segment_name, segment_numbers
from tests.ledger.simulated_disk import SECTOR_BYTES, SimulatedDisk
from tests.sim.image import check_kind, newest
from tests.sim.workload import Workload

TURNS = 8
BITS = 400
"""Bit flips tried for each seed; over the seeds all positions and bits come up."""


class Damage(msgspec.Struct, frozen=True):
    """`data`: what the newest segment says now. `begin`, `end`: the bytes that may be lost."""

    kind: str
    data: bytes
    begin: int
    end: int


def run(seed: int) -> Counter[str]:
    """Damage one seed's ledger in many ways, each alone. Counts the cases."""
    workload = Workload(seed, "rot", segment_bytes=(1_500, 4_000, 1 << 20))
    workload.run(TURNS)
    rot = _Rot(workload)
    for damage in damages(newest(workload.disk), workload.random):
        rot.check(damage, with_hint=True)
        if damage.kind != "bit":
            rot.check(damage, with_hint=False)
    rot.check_hint()
    rot.check_lost_segment()
    return rot.tally


class _Rot:
    def __init__(self, workload: Workload) -> None:
        self.tally: Counter[str] = Counter()
        self.random = workload.random
        self.states = workload.states
        self.durable = workload.durable
        self.files = {name: workload.disk.read(name) for name in workload.disk.names()}
        self.name = segment_name(segment_numbers(self.files)[-1])
        assert self.opened(self.files) == self.durable

    def opened(self, files: dict[str, bytes]) -> int | None:
        """Number of the last entry that came back, in a state that was; None for a refusal."""
        disk = SimulatedDisk()
        for name, data in files.items():
            disk.overwrite(name, data)
        try:
            found = read_newest(disk, where="ledger")
        except LedgerProblem as problem:
            check_kind(problem, "damaged")
            return None
        assert found.accounts.dump() == self.states[found.n], f"no state after {found.n}"
        return found.n

    def check(self, damage: Damage, *, with_hint: bool) -> None:
        self.tally["damaged images"] += 1
        self.tally[damage.kind] += 1
        files = {**self.files, self.name: damage.data}
        least = self.durable
        if not with_hint:
            del files[HINT_NAME]
            least = self.known_durable_outside(damage)
        n = self.opened(files)
        if n is None:
            self.tally["refused"] += 1
        else:
            assert n >= least, f"{damage.kind} at {damage.begin}: {n} of {least} came back"

    def known_durable_outside(self, damage: Damage) -> int:
        """The newest watermark in the segment's lines that the damage left alone."""
        watermarks = [0]
        offset = 0
        for line in self.files[self.name].split(b"\n")[:-1]:
            place = place_of(line[17:])
            end = offset + len(line) + 1
            if place is not None and (end <= damage.begin or offset >= damage.end):
                watermarks.append(place.d)
            offset = end
        return max(watermarks)

    def check_hint(self) -> None:
        """A rotten hint says nothing, and never something wrong."""
        hint = self.files[HINT_NAME]
        for index in range(len(hint)):
            flipped = _flipped(hint, index, self.random.randrange(8))
            self.tally["damaged images"] += 1
            self.tally["hint"] += 1
            assert self.opened({**self.files, HINT_NAME: flipped}) == self.durable
            assert self.opened({**self.files, HINT_NAME: hint[:index]}) == self.durable

    def check_lost_segment(self) -> None:
        """The newest file is gone: an older one is not the state."""
        self.tally["damaged images"] += 1
        self.tally["lost segment"] += 1
        files = {name: data for name, data in self.files.items() if name != self.name}
        assert self.opened(files) is None


def damages(data: bytes, source: random.Random) -> Iterator[Damage]:
    """What can become of a segment."""
    for _ in range(BITS):
        at = source.randrange(len(data))
        yield Damage("bit", _flipped(data, at, source.randrange(8)), at, at + 1)
    for at in range(0, len(data), SECTOR_BYTES):
        yield from _sector(data, at, source)
    for _ in range(60):
        at = source.randrange(len(data))
        yield Damage("cut", data[:at], at, len(data))
    yield from _lines(data)


def _sector(data: bytes, at: int, source: random.Random) -> Iterator[Damage]:
    end = min(len(data), at + SECTOR_BYTES)
    replaced: dict[str, Callable[[], bytes]] = {
        "zeroed sector": lambda: bytes(end - at),
        "garbage sector": lambda: source.randbytes(end - at),
    }
    if at:
        replaced["wrong sector"] = lambda: data[at - SECTOR_BYTES : at][: end - at]
    for kind, new in replaced.items():
        yield Damage(kind, data[:at] + new() + data[end:], at, end)


def _lines(data: bytes) -> Iterator[Damage]:
    lines = data.split(b"\n")[:-1]
    ends = [0]
    for line in lines:
        ends.append(ends[-1] + len(line) + 1)
    for index in range(2, len(lines)):
        begin, end = ends[index], ends[index + 1]
        # Without its last line a file looks as if that was never written.
        lost_until = end if index < len(lines) - 1 else len(data)
        dropped = lines[:index] + lines[index + 1 :]
        yield Damage("dropped line", _joined(dropped), begin, lost_until)
        yield Damage("doubled line", _joined(lines[: index + 1] + lines[index:]), begin, end)
        if index + 1 < len(lines):
            swapped = [*lines[:index], lines[index + 1], lines[index], *lines[index + 2 :]]
            yield Damage("swapped lines", _joined(swapped), begin, ends[index + 2])


def _joined(lines: list[bytes]) -> bytes:
    return b"".join(line + b"\n" for line in lines)


def _flipped(data: bytes, index: int, bit: int) -> bytes:
    return data[:index] + bytes((data[index] ^ 1 << bit,)) + data[index + 1 :]
