"""What must hold in the books: the product's own invariants, by one name here."""

from collections.abc import Iterable

from cortexd.ledger.accounts import Accounts
from cortexd.ledger.entries import Entry
from cortexd.ledger.invariants import check_accounts, check_at_rest, check_history

__all__ = ["check_books", "check_entries", "check_idle"]


def check_books(accounts: Accounts) -> None:
    """At any time: sums are sums, and a snapshot brings the same books back."""
    check_accounts(accounts)


def check_idle(accounts: Accounts) -> None:
    """Without a running request nothing is reserved."""
    check_at_rest(accounts)


def check_entries(entries: Iterable[Entry]) -> None:
    """Entries that follow each other from the first one on can have happened."""
    check_history(entries)
