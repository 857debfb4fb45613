"""Refusals on the wire."""

import json

import pytest

from cortexd.dialects.refusals import (
    TABLE,
    Counted,
    Exhausted,
    Refusal,
    RefusalKind,
    Rendered,
    Retry,
    budget_refusal,
    code_of,
    error_body,
    render,
)


def headers_of(rendered: Rendered) -> dict[bytes, bytes]:
    headers = dict(rendered.headers)
    assert len(headers) == len(rendered.headers)
    return headers


def test_every_kind_has_a_row() -> None:
    assert set(TABLE) == set(RefusalKind)


@pytest.mark.parametrize("kind", RefusalKind)
@pytest.mark.parametrize("seconds", [None, 0, 7, 61])
def test_every_refusal_is_an_envelope_with_ids_and_obeys_its_row(
    kind: RefusalKind, seconds: int | None
) -> None:
    refusal = Refusal(kind, "It is so.", param="p", retry_after_seconds=seconds)
    rendered = render(refusal, request_id="r-1")
    row = TABLE[kind]
    assert rendered.status == row.status
    assert json.loads(rendered.body) == {
        "error": {"message": "It is so.", "type": row.type, "param": "p", "code": row.code}
    }
    headers = headers_of(rendered)
    assert headers[b"content-type"] == b"application/json"
    assert headers[b"x-request-id"] == headers[b"request-id"] == b"r-1"
    if row.retry is Retry.NEVER:
        assert headers[b"x-should-retry"] == b"false"
        assert b"retry-after" not in headers
    elif row.retry is Retry.LATER or seconds is not None:
        assert headers[b"retry-after"] == {7: b"7", 61: b"61"}.get(seconds or 0, b"1")
        assert (headers.get(b"x-should-retry") == b"false") == (seconds == 61)
    else:
        assert not headers.keys() & {b"retry-after", b"x-should-retry"}


def test_four_hundreds_are_not_retried_but_for_rate_and_time() -> None:
    for kind, row in TABLE.items():
        if row.status < 500 and kind not in (
            RefusalKind.RATE_LIMIT_EXCEEDED,
            RefusalKind.REQUEST_TIMEOUT,
        ):
            assert row.retry is Retry.NEVER
        assert row.status != 402


@pytest.mark.parametrize("seconds", [None, 1, 60, 61])
def test_what_is_final_is_not_asked_again_however_soon_it_might(seconds: int | None) -> None:
    refusal = Refusal(
        RefusalKind.RATE_LIMIT_EXCEEDED, "No.", retry_after_seconds=seconds, is_final=True
    )
    rendered = render(refusal, request_id="r")
    headers = headers_of(rendered)
    assert headers[b"x-should-retry"] == b"false"
    assert headers[b"retry-after"] == b"%d" % (seconds or 1)


def test_a_code_of_its_own_wins_over_the_kinds() -> None:
    refusal = Refusal(RefusalKind.NEURON_REJECTED, "No.", code="vision_unsupported")
    assert code_of(refusal) == "vision_unsupported"
    assert json.loads(error_body(refusal))["error"]["code"] == "vision_unsupported"


def test_a_wrong_method_hears_the_right_ones() -> None:
    refusal = Refusal(RefusalKind.METHOD_NOT_ALLOWED, "No.", allowed_methods=("GET", "HEAD"))
    assert headers_of(render(refusal, request_id="r"))[b"allow"] == b"GET, HEAD"


def test_a_wrong_key_hears_the_scheme() -> None:
    rendered = render(Refusal(RefusalKind.INVALID_API_KEY, "No."), request_id="r")
    assert headers_of(rendered)[b"www-authenticate"] == b"Bearer"


def test_a_message_with_half_a_surrogate_pair_is_still_sent() -> None:
    refusal = Refusal(RefusalKind.MODEL_NOT_FOUND, "The model '\ud800' does not exist.")
    assert json.loads(error_body(refusal))["error"]["message"] == "The model '?' does not exist."


def over_budget(
    *,
    counts: Counted = "tokens",
    span: str = "in any 3600 s",
    retry_after_seconds: int | None = None,
    never_fits: bool = False,
    clamped: bool = False,
    reserved: int = 15,
) -> Refusal:
    cap = Exhausted(
        owner="key 'key-cap'",
        counts=counts,
        hard_cap=100,
        span=span,
        time_restores=span != "in all",
        spent=80,
        reserved=reserved,
        available=5,
    )
    return budget_refusal(
        cap,
        asked=52,
        clamped=clamped,
        never_fits=never_fits,
        retry_after_seconds=retry_after_seconds,
    )


def test_without_open_requests_none_are_blamed() -> None:
    assert over_budget(reserved=0).message.endswith("this request needs up to 52.")
    assert over_budget(reserved=1).message.endswith(" It may fit when open requests end.")


@pytest.mark.parametrize("never_fits", [True, False])
@pytest.mark.parametrize("span", ["in all", "in any 3600 s", "per 60 s"])
def test_the_message_names_the_cap_and_all_its_numbers(span: str, never_fits: bool) -> None:
    message = over_budget(span=span, never_fits=never_fits).message
    for fact in ("key 'key-cap'", "100 tokens", "80 spent", "15 reserved", "5 left", "to 52"):
        assert fact in message
    assert f"100 tokens {span};" in message
    assert ("waiting cannot help" in message) == never_fits


def test_a_clamped_request_is_told_the_least_that_it_needs() -> None:
    assert "this request needs at least 52." in over_budget(clamped=True).message


@pytest.mark.parametrize(
    ("counts", "span", "never_fits", "wait", "message"),
    [
        (
            *("requests", "per 60 s", False, 7),
            "Request budget of key 'key-cap' exceeded: its cap is 100 requests per 60 s; 80 made. "
            "It fits in 7 s if no other is made until then.",
        ),
        (
            *("requests", "in all", False, None),
            "Request budget of key 'key-cap' exceeded: its cap is 100 requests in all; 80 made. "
            "Waiting cannot help: a balance is not restored by time.",
        ),
        (
            *("requests", "per 60 s", True, 60),
            "Request budget of key 'key-cap' exceeded: its cap is 100 requests per 60 s; 80 made. "
            "A cap of none lets no request pass: waiting cannot help.",
        ),
        (
            *("in flight", "at a time", False, None),
            "Too many requests in flight for key 'key-cap': its cap is 100 requests at a time; "
            "15 open. It may fit when open requests end.",
        ),
    ],
)
def test_a_cap_on_requests_speaks_of_requests(
    counts: Counted, span: str, never_fits: bool, wait: int | None, message: str
) -> None:
    refusal = over_budget(
        counts=counts,
        span=span,
        never_fits=never_fits,
        retry_after_seconds=wait,
        reserved=15 if counts == "in flight" else 0,
    )
    assert refusal.message == message
    code = "insufficient_quota" if span == "in all" else "rate_limit_exceeded"
    assert code_of(refusal) == code


def test_an_exhausted_balance_is_a_quota_that_time_does_not_restore() -> None:
    refusal = over_budget(span="in all", reserved=0)
    assert "Waiting cannot help" in refusal.message
    rendered = render(refusal, request_id="r")
    error = json.loads(rendered.body)["error"]
    assert rendered.status == 429
    assert error["type"] == error["code"] == "insufficient_quota"
    headers = headers_of(rendered)
    assert b"retry-after" not in headers
    assert headers[b"x-should-retry"] == b"false"
    assert "open requests end" in over_budget(span="in all", reserved=1).message


@pytest.mark.parametrize(
    ("wait", "never_fits", "retry_after", "stops_retries"),
    [
        (1, False, b"1", False),
        (0, False, b"1", False),
        (60, False, b"60", False),
        (61, False, b"61", True),
        (None, False, b"1", False),
        (3600, True, b"3600", True),
        (1, True, b"1", True),
        (60, True, b"60", True),
    ],
)
def test_a_rolling_window_says_when_to_come_back(
    wait: int | None, never_fits: bool, retry_after: bytes, stops_retries: bool
) -> None:
    refusal = over_budget(retry_after_seconds=wait, never_fits=never_fits)
    rendered = render(refusal, request_id="r")
    headers = headers_of(rendered)
    assert rendered.status == 429
    assert json.loads(rendered.body)["error"]["code"] == "rate_limit_exceeded"
    assert headers[b"retry-after"] == retry_after
    assert (b"x-should-retry" in headers) == stops_retries
