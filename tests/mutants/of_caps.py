"""What could go wrong with caps, windows, reservations and the clock."""

from tests.mutants.layers import (
    ACCOUNTS,
    CLOCK,
    FOUND,
    FUZZ,
    MANY_LIVES,
    MODEL,
    PERIODS,
    SEVERAL,
    WINDOWS,
    WORLDS,
)
from tests.mutants.mutant import of_file

_ROLLING = "self._counts_ms = window_ms + window_ms // 1024 + 1"

MUTANTS = (
    *of_file(
        "cortexd/ledger/windows.py",
        FUZZ,
        ("a window is one tick short", _ROLLING, "self._counts_ms = window_ms - 1"),
        (
            "charges that are merged keep the oldest stamp",
            "            merged = charges.pop()[1]\n        else:\n            self._newest",
            "            now_ms, merged = charges.pop()\n        else:\n            self._newest",
        ),
        (
            "a charge that expires stays in the sum",
            "self.remembered -= charges.popleft()[1]",
            "charges.popleft()",
        ),
        (
            "merged charges count twice in the sum",
            "self.remembered += total - merged",
            "self.remembered += total",
        ),
        (
            "retry-after is one tick early",
            "Fit(max(now_ms, stamp + self._counts_ms), exact=True)",
            "Fit(max(now_ms, stamp + self._counts_ms - 1), exact=True)",
        ),
        (
            "retry-after is one token off",
            "            spent -= tokens\n            if spent <= room:",
            "            spent -= tokens\n            if spent < room:",
        ),
        (
            "a snapshot drops a charge",
            "return tuple(entry for entry in self._charges if",
            "return tuple(entry for entry in list(self._charges)[1:] if",
        ),
        (
            "a charge counts one tick less than its expiry says",
            "if stamp + self._counts_ms > now_ms:",
            "if stamp + self._counts_ms > now_ms + 1:",
        ),
    ),
    *of_file(
        "cortexd/ledger/windows.py",
        MANY_LIVES,
        ("windows trust a clock that runs fast", _ROLLING, "self._counts_ms = window_ms"),
    ),
    *of_file(
        "cortexd/ledger/windows.py",
        WINDOWS,
        (
            "grains are rounded down, so that windows outgrow their memory",
            "self._grain_ms = -(-window_ms // buckets)",
            "self._grain_ms = max(1, window_ms // (4 * buckets))",
        ),
        (
            "merged charges outgrow what the books can hold",
            "        if total > AMOUNT_MAX:",
            "        if False:",
        ),
        (
            "a waiting caller is told a moment for what only reservations block",
            "return Fit(now_ms + ASK_AGAIN_MS, exact=False)",
            "return Fit(now_ms + ASK_AGAIN_MS, exact=True)",
        ),
        (
            "a balance gives tokens back",
            'None, as time gives nothing back."""\n        return None',
            'None, as time gives nothing back."""\n        return Fit(now_ms + 1, exact=True)',
        ),
    ),
    *of_file(
        "cortexd/ledger/limits.py",
        FUZZ,
        (
            "the cap is one token too large",
            "room = self.hard_cap - self.reserved",
            "room = self.hard_cap + 1 - self.reserved",
        ),
        (
            "the cap is one token too small",
            "room = self.hard_cap - self.reserved",
            "room = self.hard_cap - 1 - self.reserved",
        ),
        (
            "what has left a window counts until it is forgotten",
            "window.remembered <= room or window.spent_at(now_ms) <= room",
            "window.remembered <= room",
        ),
        (
            "a caller is told the first retry-after, not the worst",
            "latest = max(refusals, key=lambda refused: refused.fits_in_ms or 0)",
            "latest = refusals[0]",
        ),
        (
            "an answer is exact if one of several is",
            "exact=all(refused.exact for refused in refusals)",
            "exact=any(refused.exact for refused in refusals)",
        ),
        (
            "a request larger than the cap is told to wait",
            "        if asked <= self.hard_cap:\n            fit =",
            "        if True:\n            fit =",
        ),
    ),
    *of_file(
        "cortexd/ledger/limits.py",
        WORLDS,
        (
            "open reservations do not count",
            "room = self.hard_cap - self.reserved",
            "room = self.hard_cap",
        ),
        (
            "what was spent does not count",
            "window.remembered <= room or window.spent_at(now_ms) <= room",
            "room >= 0",
        ),
    ),
    *of_file(
        "cortexd/ledger/limits.py",
        (FUZZ, ACCOUNTS, SEVERAL),
        (
            "requests are not charged",
            "            self.window.charge(now_ms, 1)",
            "            self.window.charge(now_ms, 0)",
        ),
        (
            "a request is given back when it ends",
            '        if self.unit == "tok":\n            self.reserved -= reserved',
            '        if self.unit == "req":\n'
            "            self.window.charge(now_ms, -1)\n"
            '        if self.unit == "tok":\n            self.reserved -= reserved',
        ),
        (
            "a clamped request gets less than the least",
            "return least + max(0, more // step * step)",
            "return least + more // step * step",
        ),
        (
            "a clamped request gets tokens that buy nothing",
            "max(0, more // step * step)",
            "max(0, more)",
        ),
        (
            "a clamped request gets what the roomiest cap has",
            "min(left, default=tokens)",
            "max(left, default=tokens)",
        ),
        (
            "a request in flight costs its tokens",
            '(tokens if self.unit == "tok" else 1)',
            '(tokens if self.unit in ("tok", "con") else 1)',
        ),
        (
            "requests in flight are never given back",
            '        elif self.unit == "con":\n            self.reserved -= 1',
            '        elif self.unit == "con":\n            self.reserved -= 0',
        ),
        (
            "a cap that comes back begins with nothing spent",
            "            return Balance(spent_ever)",
            "            return Balance(0)",
        ),
        (
            "a fixed window begins with every charge that is remembered",
            "return Fixed(window, entry.t, _since(begins_ms, charges))",
            "return Fixed(window, entry.t, _since(0, charges))",
        ),
        (
            "a restored fixed window has nothing spent",
            "return Fixed(window, books.begins_ms, books.spent)",
            "return Fixed(window, books.begins_ms, 0)",
        ),
        (
            "a restored civil period has nothing spent",
            "return Calendar(window, roll, clock, books.spent)",
            "return Calendar(window, roll, clock, 0)",
        ),
        (
            "what waiting cannot cure is told as what it can",
            "    if never:\n",
            "    if len(never) == len(refusals):\n",
        ),
    ),
    *of_file(
        "cortexd/ledger/periods.py",
        (FUZZ, PERIODS),
        (
            "fixed windows begin with their first charge",
            "return now_ms - now_ms % self.window.ms",
            "return now_ms",
        ),
        (
            "a fixed window forgets nothing at its end",
            "            self._begins_ms = self._begin(now_ms)\n            self.remembered = 0",
            "            self._begins_ms = self._begin(now_ms)",
        ),
        (
            "a fixed window ends one tick early",
            "return 0 if now_ms >= self._begins_ms + self.window.ms else",
            "return 0 if now_ms >= self._begins_ms + self.window.ms - 1 else",
        ),
        (
            "a new civil period goes on with what the last one spent",
            "        self.roll = roll\n        self.remembered = 0",
            "        self.roll = roll",
        ),
        (
            "a wall clock that is moved forward begins a civil period",
            "return is_another and now_ms >= roll.not_before_ms",
            "return is_another",
        ),
        (
            "a civil period ends by ledger time alone",
            "return is_another and now_ms >= roll.not_before_ms",
            "return now_ms >= roll.not_before_ms",
        ),
        (
            "a wall clock that comes back keeps a cap shut until its time has come again",
            "is_another = not roll.begins_wall_ms <= wall_ms < roll.ends_wall_ms",
            "is_another = wall_ms >= roll.ends_wall_ms",
        ),
        (
            "what is left of a civil period is told by the wrong clock",
            "return max(roll.ends_wall_ms - ahead_ms, roll.not_before_ms)",
            "return max(roll.ends_wall_ms, roll.not_before_ms)",
        ),
        (
            "a civil period is said to begin again before it can",
            "return max(roll.ends_wall_ms - ahead_ms, roll.not_before_ms)",
            "return roll.ends_wall_ms - ahead_ms",
        ),
    ),
    *of_file(
        "cortexd/ledger/limit_table.py",
        (FUZZ, SEVERAL, ACCOUNTS, FOUND),
        (
            "a new cap ignores open reservations",
            "            limit.reserved = limit.reserved_by(reservations)\n            self",
            "            self",
        ),
        (
            "a cap that comes back has forgotten everything",
            "        limit = self._by_id.get(entry.l)\n        if limit is None:",
            "        limit = self._by_id.get(entry.l)\n        if limit is None or limit.retired:",
        ),
        (
            "only the last of several civil periods is foreseen",
            "min((roll.ends_wall_ms for roll in rolls), default=math.inf),",
            "max((roll.ends_wall_ms for roll in rolls), default=math.inf),",
        ),
        (
            "a period that another cap has left is not looked at",
            "max((roll.begins_wall_ms for roll in rolls), default=-math.inf),",
            "min((roll.begins_wall_ms for roll in rolls), default=-math.inf),",
        ),
        (
            "every civil period begins with the first one that is over",
            "            if calendar.is_over(now_ms, wall_ms):\n",
            "            if True:\n",
        ),
        (
            "the next civil period may begin as soon as this one has",
            "self.length_ms * 9 // 10",
            "self.length_ms * 0 // 10",
        ),
        (
            "the next civil period is counted from the clock's midnight, not from this one's begin",
            "return max(self.begins_ms, earlier_ms) + self.length_ms",
            "return self.begins_ms + self.length_ms",
        ),
        (
            "a new window remembers requests as tokens",
            "if limit.unit == unit and isinstance(limit.window, Rolling)",
            "if isinstance(limit.window, Rolling)",
        ),
        (
            "a new civil cap counts what was spent before its period",
            "        b=period.begins_ms,",
            "        b=0,",
        ),
        (
            "a cap of less than nothing is taken",
            "is_possible = cap.window.makes_sense and 0 <= cap.hard_cap <= AMOUNT_MAX",
            "is_possible = cap.window.makes_sense",
        ),
        (
            "of two caps on the same the last one holds",
            "if cap.limit_id in wanted or not is_possible:",
            "if not is_possible:",
        ),
        (
            "a limit under another one's name is taken",
            "        if limit.limit_id != entry.l:",
            "        if False:",
        ),
        (
            "a cap that nobody enforced is dropped",
            "        if limit is None or limit.retired:\n            raise",
            "        if limit is None:\n            raise",
        ),
        (
            "a shadow cap refuses",
            "enforcing=tuple(limit for limit in asked_for if not limit.shadow)",
            "enforcing=asked_for",
        ),
        (
            "what a shadow cap would have refused is not told",
            "shadows=tuple(limit for limit in asked_for if limit.shadow)",
            "shadows=()",
        ),
        (
            "a retired cap refuses",
            "asked_for = tuple(limit for limit in every if not limit.retired)",
            "asked_for = every",
        ),
        (
            "a cap that is new or changed is not seen by those who asked before",
            "        limit.retired = False\n        self.on.clear()\n",
            "        limit.retired = False\n",
        ),
        (
            "a cap that was taken away refuses those who asked before",
            "        limit.retired = True\n        self.on.clear()\n",
            "        limit.retired = True\n",
        ),
        ("a cap that is taken away stays", "        limit.retired = True", "        pass"),
        (
            "a cap that comes back stays away",
            "        limit.retired = False",
            "        pass",
        ),
        (
            "a new window remembers nothing",
            "        return best.charges_at(now_ms)",
            "        return ()",
        ),
        (
            "a new window begins with the worst memory",
            "best = min(enough, key=_length) if enough else max(known, key=_length)",
            "best = min(known, key=_length)",
        ),
        (
            "a cap that is raised stays as it was",
            "(limit.hard_cap, limit.shadow) == (cap.hard_cap, cap.shadow)",
            "limit.shadow == cap.shadow",
        ),
        (
            "a cap that stops being a shadow stays one",
            "(limit.hard_cap, limit.shadow) == (cap.hard_cap, cap.shadow)",
            "limit.hard_cap == cap.hard_cap",
        ),
    ),
    *of_file(
        "cortexd/ledger/accounts.py",
        FUZZ,
        (
            "only the first scope is judged",
            "limits = self._limits.on[scopes]\n        refused",
            "limits = self._limits.on[scopes[:1]]\n        refused",
        ),
        (
            "overrun is clamped away",
            "limit.close(now_ms, reserved, charged)",
            "limit.close(now_ms, reserved, min(charged, reserved))",
        ),
        (
            "asking with an old time looks into the past",
            "        now_ms = max(now_ms, self.now_ms)\n        tokens = _amount(tokens)",
            "        now_ms = min(now_ms, self.now_ms)\n        tokens = _amount(tokens)",
        ),
    ),
    *of_file(
        "cortexd/ledger/accounts.py",
        (WORLDS, MODEL),
        (
            "a charge counts from when it was reserved",
            "limit.close(now_ms, reserved, charged)",
            "limit.close(held.t, reserved, charged)",
        ),
        (
            "recovery charges what nobody knows with nothing",
            'CloseEntry(now_ms, found.reservation_id, found.tokens, "crash")',
            'CloseEntry(now_ms, found.reservation_id, 0, "crash")',
        ),
    ),
    *of_file(
        "cortexd/ledger/accounts.py",
        (FUZZ, ACCOUNTS, SEVERAL),
        (
            "a hold that does not fit is replayed",
            "            if not limit.fits(now_ms, tokens):",
            "            if False:",
        ),
        (
            "a clamped request is only judged once",
            "            refused = refusal(limits.enforcing, now_ms, tokens)\n",
            "            refused = None\n",
        ),
        (
            "time runs backwards",
            "        if entry.t < self.now_ms:",
            "        if entry.t < 0:",
        ),
        (
            "a request balance begins with tokens",
            'return lifetime.requests if unit == "req" else lifetime.tokens',
            "return lifetime.tokens",
        ),
        (
            "template tokens are forgotten by a snapshot",
            "accounts._template_tokens = dict(snapshot.learned)",
            "accounts._template_tokens = {}",
        ),
        (
            "what a template adds may shrink",
            "        if tokens <= (known or 0) or",
            "        if tokens == (known or 0) or",
        ),
    ),
    *of_file(
        "cortexd/ledger/reservations.py",
        (FUZZ, MODEL),
        ("a reservation number is used twice", "self.next_id += 1", "pass"),
        (
            "a snapshot forgets when a ghost is due",
            "            if found.ghost_until_ms is not None:",
            "            if False:",
        ),
        (
            "a ghost gets another grace with every crash",
            "if number not in ghosts]",
            "if True]",
        ),
        (
            "a ghost that was settled is charged again",
            "self._deadlines.pop(reservation_id, None)",
            "pass",
        ),
        ("a ghost is due one tick late", "if until_ms <= now_ms", "if until_ms < now_ms"),
    ),
    *of_file(
        "cortexd/ledger/reservations.py",
        MANY_LIVES,
        (
            "a ghost is charged at once, while its neuron goes on",
            "self._deadlines[reservation_id] = until_ms",
            "self._deadlines[reservation_id] = 0",
        ),
    ),
    *of_file(
        "cortexd/ledger/lifetimes.py",
        ACCOUNTS,
        ("uncertain charges are not counted", "if not is_counted:", "if False:"),
        ("overrun is not counted", "if overrun > 0:", "if False:"),
    ),
    *of_file(
        "cortexd/ledger/clock.py",
        (MANY_LIVES, CLOCK),
        (
            "the wall clock of a rebooted machine is believed",
            "believed = min(wall_ms - last_seen.wall_ms, wall_ms - last_seen.ledger_ms)",
            "believed = max(wall_ms - last_seen.wall_ms, wall_ms - last_seen.ledger_ms)",
        ),
        (
            "a civil day of a clock that was never set begins in 1970",
            "return wall_ms if wall_ms >= WALL_BELIEVED_FROM_MS else self.now_ms()",
            "return wall_ms",
        ),
        (
            "a machine without a battery is believed",
            "if last_seen.wall_ms < max(",
            "if 0 > max(",
        ),
        (
            "freezing does not freeze",
            'passed = 0 if on_reboot == "freeze" else',
            "passed =",
        ),
        (
            "ledger time is the wall clock",
            "now_ms = self._sources.boottime_ms() + self.offset_ms",
            "now_ms = self._sources.wall_ms()",
        ),
    ),
    *of_file(
        "cortexd/ledger/clock.py",
        (CLOCK, FOUND),
        (
            "ledger time runs backwards",
            "        if now_ms > self._newest:",
            "        if True:",
        ),
        (
            "another boot is taken for the same",
            "and boot_id == last_seen.boot_id",
            "and last_seen.boot_id",
        ),
        (
            "a restored machine image is taken for the same boot",
            "        and boottime_ms + last_seen.offset_ms >= last_seen.ledger_ms\n",
            "",
        ),
        (
            "steps that nobody saw are added to the downtime",
            "return max(0, believed - WALL_STEP_MS)",
            "return max(0, believed)",
        ),
    ),
)
