"""Accounts and their segment, written side by side, for tests of what can be read back."""

from collections.abc import Sequence

from cortexd.ledger.accounts import Accounts
from cortexd.ledger.entries import Entry, Snapshot
from cortexd.ledger.records import (
    FORMAT,
    Header,
    encode_entries,
    encode_header,
    encode_snapshot,
)
from cortexd.ledger.windows import BUCKETS

SALT = bytes.fromhex("07d78379f2c0f403")


def header(*, seg: int = 1, n: int = 0) -> Header:
    return Header(
        fmt=FORMAT,
        seg=seg,
        n=n,
        salt=SALT.hex(),
        prev="",
        boot="7f2e9a30-0000-4000-8000-000000000001",
        off=1763812345000,
        lt=1763900000000,
        wall=1763900000007,
        sw="cortexd 0.1",
    )


class Scribe:
    """Applies entries and writes them. `durable_n` is the watermark that the next line carries."""

    def __init__(
        self,
        accounts: Accounts | None = None,
        *,
        seg: int = 1,
        n: int = 0,
        buckets: int = BUCKETS,
    ) -> None:
        self.accounts = Accounts(buckets=buckets) if accounts is None else accounts
        self.seg = seg
        self.n = self.durable_n = n
        snapshot = self.accounts.dump()
        self.data = encode_header(header(seg=seg, n=n)) + encode_snapshot(snapshot, salt=SALT)
        self.states: dict[int, Snapshot] = {n: snapshot}

    def write(self, entries: Sequence[Entry], *, sync: bool = False) -> None:
        """Apply and write one batch; `sync` says that it was durable before the next is written."""
        self.data += encode_entries(entries, salt=SALT, n=self.n, durable_n=self.durable_n)
        for entry in entries:
            self.accounts.apply(entry)
            self.n += 1
            self.states[self.n] = self.accounts.dump()
        if sync:
            self.durable_n = self.n
