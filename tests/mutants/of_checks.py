"""Checks that are taken away: somebody has to miss each of them.

A check in `invariants.py` that nobody misses is one that may have been broken all along.
"""

from tests.mutants.layers import ACCOUNTS, FOUND, INVARIANTS, RECOVERY, WINDOWS
from tests.mutants.mutant import of_file

MUTANTS = (
    *of_file(
        "cortexd/ledger/history.py",
        (INVARIANTS, FOUND),
        (
            "I1 is not checked",
            "if used + cap.cost(tokens) > cap.hard_cap and cap.is_enforced:",
            "if False:",
        ),
        (
            "I1 is one token too lenient",
            "if used + cap.cost(tokens) > cap.hard_cap and",
            "if used + cap.cost(tokens) > cap.hard_cap + 1 and",
        ),
        (
            "I1 does not count open reservations",
            "return cap.spent_at(now_ms) + held",
            "return cap.spent_at(now_ms)",
        ),
        (
            "I9 is not checked at the charge",
            'if entry.y == "crash" and (',
            "if False and (",
        ),
        (
            "I9 lets a ghost be charged early",
            "entry.t < held.until_ms):",
            "entry.t < held.until_ms - 1):",
        ),
        (
            "I9 lets a ghost have two graces",
            "if held is None or held.until_ms is not None:",
            "if held is None:",
        ),
        (
            "I10 is not checked",
            "        held = self._open.pop(entry.i, None)",
            "        held = self._open.get(entry.i)",
        ),
        (
            "I12 is not checked for time",
            "        if entry.t < self._now_ms:",
            "        if False:",
        ),
        (
            "I12 is not checked for numbers",
            "        if entry.i != self._next:",
            "        if False:",
        ),
        ("I13 is not checked", "        if wrong:", "        if False:"),
        (
            "I13 lets a release cost something",
            "agrees = not entry.a",
            "agrees = True",
        ),
        (
            "I13 lets a crash cost less than was reserved",
            "agrees = entry.a == reserved",
            "agrees = entry.a <= reserved",
        ),
        (
            "I13 lets a cut answer cost less than was reserved",
            "agrees = entry.a >= reserved",
            "agrees = True",
        ),
        (
            "I13 does not add up the parts",
            "    if parts not in (0, entry.a) and",
            "    if False and",
        ),
        (
            "I1 does not count requests in flight",
            '"con": self.in_flight}',
            '"con": 0}',
        ),
        (
            "I1 does not count requests",
            '                if cap.unit == "req":\n                    cap.charge(entry.t, 1)',
            '                if cap.unit == "req":\n                    cap.charge(entry.t, 0)',
        ),
        (
            "I1 lets fixed periods run into each other",
            'elif window.kind == "fixed" and',
            "elif False and",
        ),
        (
            "I21 lets a civil period begin early",
            "if entry.t < cap.not_before_ms or",
            "if",
        ),
        (
            "I21 lets a civil period allow the next one too soon",
            "or entry.r - cap.not_before_ms < least_ms:",
            "or False:",
        ),
        (
            "I21 lets any cap have civil periods",
            'if cap is None or cap.window.period == "":',
            "if cap is None:",
        ),
        (
            "a history forgets the reservations that a snapshot has",
            "            for one in books:\n                one.hold(found.tokens)",
            "            for one in books:\n                pass",
        ),
        (
            "a history forgets the ghosts that a snapshot has",
            "_Open(found.tokens, books, found.ghost_until_ms)",
            "_Open(found.tokens, books)",
        ),
    ),
    *of_file(
        "cortexd/ledger/invariants.py",
        INVARIANTS,
        ("I2 is not checked", "        accounts.check()", "        pass"),
        (
            "I5 is not checked",
            "    if not before.d <= place.d < place.n:",
            "    if False:",
        ),
        (
            "I5 lets an entry be durable by its own word",
            "if not before.d <= place.d < place.n:",
            "if not before.d <= place.d <= place.n:",
        ),
        (
            "I5 lets the watermark fall",
            "if not before.d <= place.d < place.n:",
            "if not place.d < place.n:",
        ),
        (
            "I11 is not checked for a snapshot",
            "        Accounts.load(read, buckets=accounts.buckets)\n",
            "",
        ),
        (
            "I11 is not checked for a replay",
            "    if replayed != end:",
            "    if False:",
        ),
        (
            "I14 is not checked at the moment itself",
            "        if not isinstance(accounts.reserve(fits_at, scopes, tokens)[1], Granted):",
            "        if False:",
        ),
        (
            "I14 is not checked just before it",
            "        if isinstance(accounts.reserve(max(now_ms, fits_at - 1), scopes",
            "        if False and isinstance(accounts.reserve(fits_at, scopes",
        ),
        (
            "I15 is not checked",
            '        if found.ghost_until_ms is None:\n            raise BrokenInvariant("I15"',
            '        if False:\n            raise BrokenInvariant("I15"',
        ),
        (
            "I16 is not checked for entries",
            "    if place.n != before.n + 1:",
            "    if False:",
        ),
        (
            "I18 is not checked",
            "        if now is None or now.books != limit.books:",
            "        if now is None:",
        ),
        (
            "I20 is not checked",
            "    if accounts.dump() != before:",
            "    if False:",
        ),
    ),
    *of_file(
        "cortexd/ledger/chain.py",
        INVARIANTS,
        (
            "I16 lets a segment be missing",
            "missing = range(older.number + 1, newer.number)",
            "missing = range(0)",
        ),
        (
            "I16 lets entries be missing between segments",
            "if older.n != newer.header.n and not older.is_judged:",
            "if older.n > newer.header.n and not older.is_judged:",
        ),
        (
            "I16 lets entries be there twice",
            "if older.n != newer.header.n and not older.is_judged:",
            "if older.n < newer.header.n and not older.is_judged:",
        ),
        (
            "I12 lets a segment begin before its predecessor",
            "        if newer.header.lt < older.header.lt:",
            "        if False:",
        ),
        (
            "I16 lets a closed segment be changed",
            "if newer.header.prev != older.digest and",
            "if False and",
        ),
    ),
    *of_file(
        "cortexd/ledger/windows.py",
        WINDOWS,
        (
            "a sum that is none is not found",
            "if self.remembered != sum(tokens for _, tokens in self._charges):",
            "if False:",
        ),
        (
            "charges that are out of order are not found",
            "if stamps != sorted(set(stamps)):",
            "if False:",
        ),
        (
            "a window that remembers too much is not found",
            "if len(stamps) > self._buckets + 2:",
            "if False:",
        ),
        (
            "a charge out of range is not found",
            "if any(not 0 < tokens <= AMOUNT_MAX for _, tokens in self._charges):",
            "if False:",
        ),
    ),
    *of_file(
        "cortexd/ledger/accounts.py",
        (ACCOUNTS, RECOVERY),
        (
            "what is reserved is not added up afresh",
            "            if limit.reserved != reserved:",
            "            if False:",
        ),
        (
            "a balance may differ from what was ever spent",
            "if limit.window.window == BALANCE and spent != ever:",
            "if False:",
        ),
        (
            "a snapshot may have reservations out of order",
            "if not last < found.reservation_id < self._reservations.next_id:",
            "if False:",
        ),
        (
            "a snapshot need not be canonical",
            "        if accounts.dump() != snapshot:",
            "        if False:",
        ),
        (
            "a snapshot may have reservations that were never counted",
            "if not self._counters.keys() >= set(found.scopes):",
            "if False:",
        ),
    ),
)
