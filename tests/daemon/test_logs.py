"""The log: one line per event, safe whatever came from outside."""

import logging
from collections.abc import Iterator

import msgspec
import pytest

from cortexd.daemon import logs
from cortexd.dialects.usage import EndingKind
from cortexd.finished import Finished
from cortexd.fleet.serving import Cause, Unserved
from cortexd.ledger.cap_windows import rolling
from cortexd.ledger.charging import Charge
from cortexd.ledger.entries import Refused, Standing, key_scope

CHARGE = Charge(tokens=90, prompt_tokens=80, completion_tokens=10, why="settle", overrun=38)


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


def test_a_request_is_one_line_of_key_value_pairs(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "cortexd"):
        logs.request_line(finished())
    [record] = caplog.records
    assert record.getMessage() == (
        "event=request request_id=req_1 method=POST path=/v1/chat/completions status=200 key=ci "
        "model=org/model neuron=beast reserved=52 first_token_ms=10 duration_ms=250"
    )


def test_all_that_can_be_said_of_a_request_is_in_its_line_in_one_order(
    caplog: pytest.LogCaptureFixture,
) -> None:
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
    with caplog.at_level(logging.INFO, "cortexd"):
        logs.request_line(told)
    [record] = caplog.records
    assert record.getMessage() == (
        'event=request request_id=req_1 method=POST path="/v1/chat/completions?a b" status=503 '
        "code=no_neuron account=acme key=ci model=org/model neuron=beast stream=1 reserved=52 "
        "clamped_from=532 unjournalled=1 charged=90 why=settle "
        f"ending={EndingKind.NEURON_FAILED.value} waited_ms=7 "
        f'unserved={Cause.QUEUE_CLOCK.value} failure="it broke" first_token_ms=10 duration_ms=250 '
        "dropped=store,user sdk_retry=2"
    )


def test_a_refusal_before_anybody_is_known_is_a_short_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.INFO, "cortexd"):
        logs.request_line(Finished("req_1", "GET", "/100%", 404, 0.0004, code="not_found"))
    [record] = caplog.records
    assert record.getMessage() == (
        'event=request request_id=req_1 method=GET path="/100%" status=404 code=not_found '
        "duration_ms=0"
    )


def test_an_overrun_is_an_error_that_names_the_neuron(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "cortexd"):
        logs.request_line(finished(charge=CHARGE))
    error = caplog.records[-1]
    assert error.levelno == logging.ERROR
    for word in ("neuron=beast", "reserved=52", "charged=90", "action="):
        assert word in error.getMessage()


def test_what_a_shadow_would_have_refused_is_a_line_of_its_own(
    caplog: pytest.LogCaptureFixture,
) -> None:
    standing = Standing(key_scope("ci"), 100, rolling(60_000), 90, 5, None, shadow=True)
    would_refuse = Refused(standing, asked=52, fits_in_ms=None, exact=False)
    with caplog.at_level(logging.INFO, "cortexd"):
        logs.request_line(msgspec.structs.replace(finished(), would_refuse=would_refuse))
    assert caplog.records[-1].levelno == logging.INFO
    assert caplog.records[-1].getMessage() == (
        "event=budget_shadow request_id=req_1 key_id=ci scope=key:ci cap=tok/rolling:60000 "
        "asked=52 available=5"
    )


def test_what_is_unusual_about_a_request_is_in_its_line(caplog: pytest.LogCaptureFixture) -> None:
    odd = msgspec.structs.replace(
        finished(), clamped_from=532, unjournalled=True, notes=("bad_tool_arguments", "other")
    )
    with caplog.at_level(logging.INFO, "cortexd"):
        logs.request_line(odd)
    line = caplog.records[0].getMessage()
    assert " reserved=52 clamped_from=532 unjournalled=1 " in line
    assert line.endswith(" notes=bad_tool_arguments,other")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("", '""'),
        ("two words", '"two words"'),
        ('say "hi"', '"say \\"hi\\""'),
        ("a=b", '"a=b"'),
        ("org/model-1.5_Q4:free", "org/model-1.5_Q4:free"),
        ("it's", '"it\'s"'),
        ("a,b", '"a,b"'),
        ("back\\slash", '"back\\\\slash"'),
        ("Zürich", '"Zürich"'),
        ("line\nbreak\x1b[31m", '"line?break?[31m"'),
        ("x" * 200, "x" * 200),
        ("x" * 500, "x" * 200),
        ("x" * 200 + "\n", "x" * 200),
        ("plain\n", '"plain?"'),
    ],
)
def test_text_from_outside_cannot_forge_a_line_or_a_field(text: str, shown: str) -> None:
    assert logs.quoted(text) == shown


def test_an_id_with_odd_characters_is_quoted_wherever_it_stands(
    caplog: pytest.LogCaptureFixture,
) -> None:
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
    with caplog.at_level(logging.INFO, "cortexd"):
        logs.request_line(odd)
    request, shadow, overrun = (record.getMessage() for record in caplog.records)
    assert ' account="it\'s" key="a\\"status=200" model="say what" neuron="b=c" ' in request
    assert ' key_id="a\\"status=200" scope="key:a%3Db" cap=tok/rolling:60000 ' in shadow
    assert ' neuron="b=c" model="say what" ' in overrun


_OF_THE_PROCESS = ("logThreads", "logProcesses", "logMultiprocessing", "_srcfile")


@pytest.fixture
def own_logging() -> Iterator[None]:
    """Logging may be set up, and is as it was afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    before = {name: getattr(logging, name) for name in _OF_THE_PROCESS}
    yield
    root.handlers[:], root.level = handlers, level
    for name, value in before.items():
        setattr(logging, name, value)


@pytest.mark.usefixtures("own_logging")
def test_under_journald_every_line_carries_its_priority(capsys: pytest.CaptureFixture[str]) -> None:
    logs.set_up({"JOURNAL_STREAM": "8:1"})
    logging.getLogger("cortexd.test").error("one\ntwo")
    logs.request_line(finished(charge=CHARGE))
    logs.set_up({})
    logging.getLogger("cortexd.test").warning("three")
    lines = capsys.readouterr().err.splitlines()
    assert lines[:2] == ["<3>cortexd.test one", "<3>two"]
    assert lines[2].startswith("<6>cortexd.request event=request request_id=req_1 ")
    assert lines[3].startswith("<3>cortexd.request event=overrun request_id=req_1 ")
    assert lines[4].endswith("WARNING cortexd.test three")


@pytest.mark.usefixtures("own_logging")
def test_what_was_raised_is_still_told_in_full(capsys: pytest.CaptureFixture[str]) -> None:
    """Lines are made without looking for the place that logs; a traceback does not need it."""
    logs.set_up({"JOURNAL_STREAM": "8:1"})
    try:
        raise ZeroDivisionError
    except ZeroDivisionError:
        logging.getLogger("cortexd.test").exception("event=bug")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "<3>cortexd.test event=bug"
    assert any("test_logs.py" in line for line in lines)
    assert lines[-1] == "<3>ZeroDivisionError"
    assert all(line.startswith("<3>") for line in lines)
