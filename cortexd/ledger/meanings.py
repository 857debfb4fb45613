"""The ledger's invariants by name, and the error that says which of them does not hold."""

from typing import Final

MEANINGS: Final = {
    "I1": "no reservation is made that a cap on one of its scopes has no room for",
    "I2": "what is reserved on a cap is the sum of the open reservations; nothing is negative",
    "I5": "an entry claims no more to be durable than what stands before it",
    "I9": "a reservation whose owner died is charged after its grace, which is given once",
    "I10": "every reservation is closed exactly once, over all segments",
    "I11": "a snapshot and the entries after it say the same as all entries",
    "I12": "ledger time never runs backwards and no reservation number is used twice",
    "I13": "what is charged agrees with what was reserved and with the reason",
    "I14": "a request fits at the moment that its refusal names, and not before",
    "I15": "without a running request no reservation is open but those of dead processes",
    "I16": "every segment goes on where the one before it ends, and names it by its digest",
    "I18": "taking a cap away and bringing it back leaves what was spent as it was",
    "I20": "asking changes nothing",
    "I21": "a civil period begins when nearly all of the one before it has passed",
}
"""Name of each invariant that is checked here -> what it says."""


class BrokenInvariant(Exception):
    """Something that must hold does not: `name` of the invariant, and `what` was found instead."""

    def __init__(self, name: str, what: str) -> None:
        super().__init__(f"{name}: {what} (what must hold: {MEANINGS[name]})")
        self.name = name
        self.what = what
