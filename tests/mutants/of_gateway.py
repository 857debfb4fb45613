"""What could go wrong between a key, the caps that it is held to, and what is told of them."""

from tests.mutants.layers import AUTH, BUDGET, CAP_WINDOWS, CAPS, FOUND_IN_CORE
from tests.mutants.mutant import of_file

MUTANTS = (
    *of_file(
        "cortexd/gateway/auth.py",
        (AUTH, CAPS),
        (
            "an unknown key is let in where keys are required",
            "        if self._open:\n            return ANONYMOUS_PRINCIPAL",
            "        if True:\n            return ANONYMOUS_PRINCIPAL",
        ),
        (
            "a known key is anonymous where none is required",
            "        if principal is not None:",
            "        if principal is not None and not self._open:",
        ),
        (
            "of two different keys one is taken",
            "if bearer is not None and api_key is not None and not hmac",
            "if False and not hmac",
        ),
        (
            "keys in x-api-key are not seen",
            "presented = bearer if bearer is not None else api_key",
            "presented = bearer",
        ),
        (
            "any scheme carries a key",
            'if scheme.lower() == b"bearer" else None',
            "if scheme else None",
        ),
        (
            "a key is not charged to its account",
            "scopes = (account_scope(key.account_id), key_scope(key_id))",
            "scopes = (key_scope(key_id),)",
        ),
        (
            "keys of one account are one key",
            "key_id = key.key_id or key.account_id",
            "key_id = key.account_id",
        ),
        (
            "a shadow counts as a cap",
            "enforced = [cap for cap in caps_of(entitlements) if not cap.shadow]",
            "enforced = list(caps_of(entitlements))",
        ),
        (
            "a cap on requests alone is taken for one on tokens",
            'capped = {cap.scope for cap in enforced if cap.unit == "tok"}',
            "capped = limited",
        ),
        (
            "who has no cap of its own is not held to its account's",
            "capped=not capped.isdisjoint(scopes),",
            "capped=scopes[1] in capped,",
        ),
        (
            "everybody is clamped",
            'min_output=key.min_output if key.over_cap == "clamp" else None,',
            "min_output=key.min_output,",
        ),
        ("a key may use any model", "models=key.models,", "models=None,"),
        (
            "accounts have no caps",
            "        *((account_scope(account.account_id), account) for account in",
            "        *((account_scope(account.account_id), account) for account in () and",
        ),
        (
            "a cap on requests counts tokens",
            'cap_window(requests.window), "req", owner.shadow)',
            'cap_window(requests.window), "tok", owner.shadow)',
        ),
        (
            "caps on requests in flight are forgotten",
            "    if owner.max_in_flight is not None:",
            "    if False:",
        ),
        (
            "a shadow's cap on tokens refuses",
            "cap_window(tokens.window), shadow=owner.shadow)",
            "cap_window(tokens.window))",
        ),
        (
            "fixed windows roll",
            "            return fixed(window.window_ms)",
            "            return rolling(window.window_ms)",
        ),
    ),
    *of_file(
        "cortexd/gateway/budget.py",
        (BUDGET, FOUND_IN_CORE, CAPS),
        (
            "what waiting cannot help is told to wait for what is in the way",
            "refused.fits_in_ms, refused.asked > standing.hard_cap",
            "refused.fits_in_ms, refused.asked >= standing.hard_cap",
        ),
        (
            "nobody is told that a request never fits",
            "        never_fits=never_fits,",
            "        never_fits=False,",
        ),
        (
            "a guess is told as a time to wait",
            "elif not refused.exact and wait_ms is not None",
            "elif False and wait_ms is not None",
        ),
        (
            "retry-after is rounded down",
            "max(1, -(-wait_ms // _MS))",
            "max(1, wait_ms // _MS)",
        ),
        (
            "time restores a balance",
            'time_restores=window.kind != "balance",',
            "time_restores=True,",
        ),
        (
            "the headers tell of the loosest cap",
            "            if tokens is None or each.available < tokens.available:",
            "            if tokens is None or each.available > tokens.available:",
        ),
        (
            "the headers tell of shadows",
            "        if each.shadow:\n            continue\n        if each.unit",
            "        if each.unit",
        ),
        (
            "the headers tell of tokens and requests in one",
            '        if each.unit == "tok":\n            if tokens',
            "        if True:\n            if tokens",
        ),
        (
            "a balance is said to be reset",
            "        if tightest.restored_in_ms is not None:",
            "        if True:",
        ),
        (
            "minutes are lost in a duration",
            '        return f"{hours}h{minutes}m{seconds}s"',
            '        return f"{hours}h{seconds}s"',
        ),
        (
            "the key's own cap is the loosest one",
            "_token_cap(min(of_key, key=_left))",
            "_token_cap(max(of_key, key=_left))",
        ),
        (
            "the account's cap is told as the key's",
            'of_key = [each for each in tokens if scope_words(each.scope)[0] == "key"]',
            "of_key = tokens",
        ),
        (
            "what is in flight is told as spent",
            '"in_flight": standing.reserved,',
            '"in_flight": standing.spent,',
        ),
        (
            "a shadow is not marked",
            'return {"shadow": True} if standing.shadow else {}',
            "return {}",
        ),
        (
            "a zone that this host lost is an error of ours",
            "    except (KeyError, ValueError, OSError):\n        return None",
            "    except OSError:\n        return None",
        ),
    ),
    *of_file(
        "cortexd/ledger/cap_windows.py",
        CAP_WINDOWS,
        (
            "windows of every length have one name",
            'return f"{self.kind}:{self.ms}" if self.ms else self.kind',
            "return self.kind",
        ),
        (
            "calendars of every zone have one name",
            'return f"calendar:{self.period}:{self.time_zone}"',
            'return f"calendar:{self.period}"',
        ),
        (
            "a window without a length makes sense",
            "return (0 < self.ms < 2**53) == (",
            "return (0 <= self.ms < 2**53) >= (",
        ),
        (
            "a calendar without a zone makes sense",
            "bool(self.period) == bool(self.time_zone) == (",
            "bool(self.period) == (",
        ),
        (
            "a balance with a length makes sense",
            'self.kind in ("rolling", "fixed")) and (',
            'self.kind in ("rolling", "fixed", "balance")) and (',
        ),
        (
            "a fixed window rolls",
            '    return CapWindow("fixed", ms)',
            '    return CapWindow("rolling", ms)',
        ),
        (
            "weeks begin on Sunday",
            "first = today - datetime.timedelta(days=today.weekday())",
            "first = today - datetime.timedelta(days=today.isoweekday() % 7)",
        ),
        (
            "a week has eight days",
            "after = first + datetime.timedelta(days=7)",
            "after = first + datetime.timedelta(days=8)",
        ),
        (
            "a month begins today",
            "            first = today.replace(day=1)",
            "            first = today",
        ),
        (
            "a month ends after 31 days",
            "after = (first + datetime.timedelta(days=31)).replace(day=1)",
            "after = first + datetime.timedelta(days=31)",
        ),
        (
            "a day ends where it began",
            "            after = today + datetime.timedelta(days=1)",
            "            after = today",
        ),
        (
            "every day is one of UTC",
            "today = datetime.datetime.fromtimestamp(wall_ms // 1000, zone).date()",
            "today = datetime.datetime.fromtimestamp(wall_ms // 1000, datetime.UTC).date()",
        ),
        (
            "midnight is that of UTC",
            "midnight = datetime.datetime.combine(day, datetime.time(), zone)",
            "midnight = datetime.datetime.combine(day, datetime.time(), datetime.UTC)",
        ),
        (
            "a zone that is lost moves midnight",
            "    ahead_ms = -midnight_ms % _DAY_MS",
            "    ahead_ms = midnight_ms % _DAY_MS",
        ),
        (
            "UTC needs a database",
            'if name == "UTC":',
            "if False:",
        ),
    ),
)
