"""The line of a request says all that came of it, safe whatever came from outside."""

import logging
from collections.abc import Callable

import msgspec
import pytest

from cortexd.daemon import logs
from cortexd.daemon.request_log import request_line
from cortexd.dialects.usage import EndingKind
from cortexd.finished import Finished
from cortexd.fleet.serving import Cause, Unserved
from cortexd.ledger.cap_windows import rolling
from cortexd.ledger.charging import Charge
from cortexd.ledger.entries import Refused, Standing, key_scope

CHARGE = Charge(tokens=90, prompt_tokens=80, completion_tokens=10, why="settle", overrun=38)

Said = Callable[[Finished], list[str]]


@pytest.fixture
def said(own_logging: None, capsys: pytest.CaptureFixture[str]) -> Said:
    """The lines that are written of a request, under journald."""

    def lines(told: Finished) -> list[str]:
        request_line(told, logs.set_up({"JOURNAL_STREAM": "8:1"}))
        return capsys.readouterr().err.splitlines()

    return lines


def finished(path: str = "/v1/chat/completions", charge: Charge | None = None) -> Finished:
    """A request that was served."""
    return Finished(
        request_id="req_1",
        method="POST",
        path=path,
        status=200,
        duration_seconds=0.25,
        key_id="ci",
        model="org/model",
        neuron="beast",
        reserved=52,
        charge=charge,
        first_token_seconds=0.01,
    )


def test_a_method_that_http2_lets_through_forges_no_field(said: Said) -> None:
    method = "GET status=200\x1b[0m" + "x" * 500
    [line] = said(msgspec.structs.replace(finished(), method=method))
    assert ' method="GET status=200?[0mx' in line
    assert "x" * 200 not in line


def test_a_request_is_one_line_of_key_value_pairs(said: Said) -> None:
    [line] = said(finished())
    assert line == (
        "<6>cortexd.request event=request request_id=req_1 method=POST path=/v1/chat/completions "
        "status=200 key=ci model=org/model neuron=beast reserved=52 first_token_ms=10 "
        "duration_ms=250"
    )


def test_all_that_can_be_said_of_a_request_is_in_its_line_in_one_order(said: Said) -> None:
    told = msgspec.structs.replace(
        finished(charge=msgspec.structs.replace(CHARGE, overrun=0)),
        path="/v1/chat/completions?a b",
        status=503,
        code="no_neuron",
        account_id="acme",
        stream=True,
        clamped_from=532,
        unjournalled=True,
        ending=EndingKind.NEURON_FAILED,
        failure="it broke",
        waited_ms=7,
        unserved=Unserved(Cause.QUEUE_CLOCK),
        dropped=("store", "user"),
        retry_count="2",
    )
    [line] = said(told)
    assert line == (
        "<6>cortexd.request event=request request_id=req_1 method=POST "
        'path="/v1/chat/completions?a b" status=503 '
        "code=no_neuron account=acme key=ci model=org/model neuron=beast stream=1 reserved=52 "
        "clamped_from=532 unjournalled=1 charged=90 why=settle "
        f"ending={EndingKind.NEURON_FAILED.value} waited_ms=7 "
        f'unserved={Cause.QUEUE_CLOCK.value} failure="it broke" first_token_ms=10 duration_ms=250 '
        "dropped=store,user sdk_retry=2"
    )


def test_a_refusal_before_anybody_is_known_is_a_short_line(said: Said) -> None:
    [line] = said(Finished("req_1", "GET", "/100%", 404, 0.0004, code="not_found"))
    assert line == (
        '<6>cortexd.request event=request request_id=req_1 method=GET path="/100%" status=404 '
        "code=not_found duration_ms=0"
    )


def test_an_overrun_is_an_error_that_names_the_neuron(said: Said) -> None:
    error = said(finished(charge=CHARGE))[-1]
    assert error.startswith("<3>cortexd.request event=overrun request_id=req_1 ")
    for word in ("neuron=beast", "reserved=52", "charged=90", "action="):
        assert word in error


def test_what_a_shadow_would_have_refused_is_a_line_of_its_own(said: Said) -> None:
    standing = Standing(key_scope("ci"), 100, rolling(60_000), 90, 5, None, shadow=True)
    would_refuse = Refused(standing, asked=52, fits_in_ms=None, exact=False)
    assert said(msgspec.structs.replace(finished(), would_refuse=would_refuse))[-1] == (
        "<6>cortexd.request event=budget_shadow request_id=req_1 key_id=ci scope=key:ci "
        "cap=tok/rolling:60000 asked=52 available=5"
    )


def test_what_is_unusual_about_a_request_is_in_its_line(said: Said) -> None:
    odd = msgspec.structs.replace(
        finished(), clamped_from=532, unjournalled=True, notes=("bad_tool_arguments", "other")
    )
    [line] = said(odd)
    assert " reserved=52 clamped_from=532 unjournalled=1 " in line
    assert line.endswith(" notes=bad_tool_arguments,other")


def test_an_id_with_odd_characters_is_quoted_wherever_it_stands(said: Said) -> None:
    """Ids are the operator's, of any printable ASCII without spaces: also these."""
    standing = Standing(key_scope("a=b"), 100, rolling(60_000), 90, 5, None, shadow=True)
    odd = msgspec.structs.replace(
        finished(charge=CHARGE),
        account_id="it's",
        key_id='a"status=200',
        neuron="b=c",
        model="say what",
        would_refuse=Refused(standing, asked=52, fits_in_ms=None, exact=False),
    )
    request, shadow, overrun = said(odd)
    assert ' account="it\'s" key="a\\"status=200" model="say what" neuron="b=c" ' in request
    assert ' key_id="a\\"status=200" scope="key:a%3Db" cap=tok/rolling:60000 ' in shadow
    assert ' neuron="b=c" model="say what" ' in overrun


def test_nothing_is_written_of_requests_where_nobody_wants_to_know(said: Said) -> None:
    logging.getLogger("cortexd.request").setLevel(logging.ERROR)
    try:
        [error] = said(finished(charge=CHARGE))
    finally:
        logging.getLogger("cortexd.request").setLevel(logging.NOTSET)
    assert "event=overrun" in error
