"""What is told of caps: the 429 of the one that bit, the headers of an answer, `GET /v1/budget`.

Pure: everything is worked out from standings; the wall clock's time only turns a wait that they
name into an instant. What a cap is, when it bites and when it comes back is the ledger's to know.
"""

import datetime
from collections.abc import Iterator, Sequence
from typing import Final, Literal

import msgspec

from cortexd.dialects.anthropic_errors import limit_headers
from cortexd.dialects.refusals import Counted, Exhausted, Refusal, budget_refusal
from cortexd.gateway.auth import Principal
from cortexd.gateway.exchange import Headers
from cortexd.ledger.cap_windows import CalendarPeriod, CapWindow, Unit, zone_of
from cortexd.ledger.entries import Refused, Standing, Totals, scope_words
from cortexd.ledger.windows import ASK_AGAIN_MS

_MS = 1000

_MINUTE_MS = 60 * _MS
_DAY_MS = 24 * 60 * _MINUTE_MS

_CIVIL_MS_MAX: Final[dict[CalendarPeriod, int]] = {
    "day": _DAY_MS,
    "week": 7 * _DAY_MS,
    "month": 31 * _DAY_MS,
}

_COUNTED: Final[dict[Unit, Counted]] = {"tok": "tokens", "req": "requests", "con": "in flight"}


def over_cap(refused: Refused, *, wall_ms: int, clamped: bool = False) -> Refusal:
    """The 429 for a request that does not fit, in the words of the cap that bit.

    `wall_ms`: Unix milliseconds now. `clamped`: what was asked of the cap is already the least.
    """
    standing, window = refused.standing, refused.standing.window
    word, name = scope_words(standing.scope)
    wait_ms, never_fits = refused.fits_in_ms, refused.asked > standing.hard_cap
    if never_fits:
        wait_ms = _length_ms(standing)
    elif not refused.exact and wait_ms is not None and wait_ms <= ASK_AGAIN_MS:
        wait_ms = None  # nobody knows: open requests are in the way, or the clock was moved
    cap = Exhausted(
        owner=f"{word} '{name}'",
        counts=_COUNTED[standing.unit],
        hard_cap=standing.hard_cap,
        span=_span(standing, wall_ms),
        time_restores=window.kind != "balance",
        spent=standing.spent,
        reserved=standing.reserved,
        available=standing.available,
    )
    return budget_refusal(
        cap,
        asked=refused.asked,
        clamped=clamped,
        never_fits=never_fits,
        retry_after_seconds=None if wait_ms is None else max(1, -(-wait_ms // _MS)),
    )


def _length_ms(standing: Standing) -> int | None:
    """How long a window is; of a civil period what is left of it; None for a balance.

    What is left of a civil period is not told as long as nothing counts in it: then the longest.
    """
    window = standing.window
    if window.period:
        return standing.restored_in_ms or _CIVIL_MS_MAX[window.period]
    return window.ms or None


def _span(standing: Standing, wall_ms: int) -> str:
    """The time that a cap is about, as it stands in a sentence."""
    window = standing.window
    match window.kind:
        case "balance":
            return "in all"
        case "rolling":
            return f"in any {_seconds(window.ms)} s"
        case "fixed":
            return f"per {_seconds(window.ms)} s"
        case "held":
            return "at a time"
        case "calendar":
            span = f"per calendar {window.period} ({window.time_zone})"
            again = _civil(wall_ms, standing.restored_in_ms, window.time_zone)
            return span if again is None else f"{span}, which begins again at {again}"


def _civil(wall_ms: int, wait_ms: int | None, time_zone: str) -> str | None:
    """The nearest minute after a wait, as its zone writes it: `2026-12-01T00:00:00+01:00`.

    Periods begin on a full minute, and the two clocks were not read at the same moment. None where
    there is no wait to speak of, or where this host does not know the zone any more.
    """
    if not wait_ms:
        return None
    at_seconds = round((wall_ms + wait_ms) / _MINUTE_MS) * 60
    try:
        return datetime.datetime.fromtimestamp(at_seconds, zone_of(time_zone)).isoformat()
    except (KeyError, ValueError, OSError):
        return None


def _seconds(milliseconds: int) -> int | float:
    seconds = milliseconds / _MS
    return int(seconds) if seconds.is_integer() else seconds


_HEADER_NAMES = {
    counted: (
        b"x-ratelimit-limit-" + word,
        b"x-ratelimit-remaining-" + word,
        b"x-ratelimit-reset-" + word,
    )
    for counted, word in (("tokens", b"tokens"), ("requests", b"requests"))
}


def budget_headers(standings: Sequence[Standing]) -> Headers:
    """`x-ratelimit-*` of the token cap and of the request cap with the least left.

    What remains is what the cap would grant next, after this request's own reservation. Nothing for
    what is not capped; a shadow limits nobody.
    """
    headers: list[tuple[bytes, bytes]] = []
    for counted, tightest in _tightest(standings):
        limit, remaining, reset = _HEADER_NAMES[counted]
        headers.append((limit, b"%d" % tightest.hard_cap))
        headers.append((remaining, b"%d" % tightest.available))
        if tightest.restored_in_ms is not None:
            headers.append((reset, go_duration(tightest.restored_in_ms).encode()))
    return tuple(headers)


def anthropic_budget_headers(standings: Sequence[Standing], *, wall_ms: int) -> Headers:
    """The same as `anthropic-ratelimit-*`, whose resets are instants; `wall_ms`: Unix time now."""
    headers: Headers = ()
    for counted, tightest in _tightest(standings):
        wait_ms = tightest.restored_in_ms
        headers += limit_headers(
            counted,
            limit=tightest.hard_cap,
            remaining=tightest.available,
            reset_unix_ms=None if wait_ms is None else wall_ms + wait_ms,
        )
    return headers


def _tightest(
    standings: Sequence[Standing],
) -> Iterator[tuple[Literal["tokens", "requests"], Standing]]:
    """Of the caps on tokens and of those on requests the one with the least left."""
    tokens: Standing | None = None
    requests: Standing | None = None
    for each in standings:  # told with every answer: plain loops
        if each.shadow:
            continue
        if each.unit == "tok":
            if tokens is None or each.available < tokens.available:
                tokens = each
        elif each.unit == "req" and (requests is None or each.available < requests.available):
            requests = each
    if tokens is not None:
        yield "tokens", tokens
    if requests is not None:
        yield "requests", requests


def go_duration(milliseconds: int) -> str:
    """A duration the way OpenAI writes it in x-ratelimit headers: `12ms`, `1s`, `6m0s`,
    `1h0m0s`.
    """
    if milliseconds < _MS:
        return f"{milliseconds}ms"
    seconds = -(-milliseconds // _MS)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes}m{seconds}s"
    return f"{minutes}m{seconds}s" if minutes else f"{seconds}s"


def budget(principal: Principal, standings: Sequence[Standing], totals: Totals) -> bytes:
    """The body of `GET /v1/budget`; the top level repeats the key's own token cap that has the
    least left.

    A key without a token cap of its own shows its `totals`: what it ever spent, and what is
    reserved. Lists of caps that count something else are there only where there are such caps.
    """
    tokens = [each for each in standings if each.unit == "tok"]
    of_key = [each for each in tokens if scope_words(each.scope)[0] == "key"]
    own = _token_cap(min(of_key, key=_left)) if of_key else _uncapped(totals)
    answer: dict[str, object] = {
        "object": "budget",
        "account_id": principal.account_id,
        "key_id": principal.key_id,
        **{name: value for name, value in own.items() if name != "scope"},
        "caps": [_token_cap(each) for each in tokens],
    }
    requests = [_request_cap(each) for each in standings if each.unit == "req"]
    in_flight = [_flight_cap(each) for each in standings if each.unit == "con"]
    if requests:
        answer["max_requests"] = requests
    if in_flight:
        answer["max_in_flight"] = in_flight
    return msgspec.json.encode(answer)


def _left(standing: Standing) -> int:
    return standing.available


def _uncapped(totals: Totals) -> dict[str, object]:
    return {
        "hard_cap": None,
        "window": None,
        "spent": totals.spent,
        "reserved": totals.reserved,
        "available": None,
    }


def _token_cap(standing: Standing) -> dict[str, object]:
    return {
        "scope": scope_words(standing.scope)[0],
        "hard_cap": standing.hard_cap,
        "window": _window(standing.window),
        "spent": standing.spent,
        "reserved": standing.reserved,
        "available": standing.available,
        **_shadow(standing),
    }


def _request_cap(standing: Standing) -> dict[str, object]:
    return {
        "scope": scope_words(standing.scope)[0],
        "count": standing.hard_cap,
        "window": _window(standing.window),
        "spent": standing.spent,
        "available": standing.available,
        **_shadow(standing),
    }


def _flight_cap(standing: Standing) -> dict[str, object]:
    return {
        "scope": scope_words(standing.scope)[0],
        "max_in_flight": standing.hard_cap,
        "in_flight": standing.reserved,
        "available": standing.available,
        **_shadow(standing),
    }


def _shadow(standing: Standing) -> dict[str, object]:
    return {"shadow": True} if standing.shadow else {}


def _window(window: CapWindow) -> dict[str, object]:
    """A window as the configuration writes it."""
    match window.kind:
        case "calendar":
            return {"kind": "calendar", "period": window.period, "time_zone": window.time_zone}
        case "rolling" | "fixed":
            return {"kind": window.kind, "seconds": _seconds(window.ms)}
        case _:
            return {"kind": window.kind}
