"""The log: one line per event, in order, whether lines were written by themselves or together."""

import io
import logging
import re
import weakref
from collections.abc import Iterator

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from cortexd.daemon import logs
from cortexd.daemon.logs import JOIN_SECONDS, JOINED_MAX, Output


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


@pytest.mark.usefixtures("own_logging")
def test_under_journald_every_line_carries_its_priority(capsys: pytest.CaptureFixture[str]) -> None:
    output = logs.set_up({"JOURNAL_STREAM": "8:1"})
    logging.getLogger("cortexd.test").error("one\ntwo")
    output.line("cortexd.lines", "three")
    logs.set_up({})
    logging.getLogger("cortexd.test").warning("four")
    lines = capsys.readouterr().err.splitlines()
    assert lines[:2] == ["<3>cortexd.test one", "<3>two"]
    assert lines[2] == "<6>cortexd.lines three"
    assert lines[3].endswith("WARNING cortexd.test four")


@pytest.mark.usefixtures("own_logging")
def test_elsewhere_every_line_says_when_it_was_told(capsys: pytest.CaptureFixture[str]) -> None:
    """A line that was made by hand looks as one that `logging` made."""
    output = logs.set_up({})
    output.line("cortexd.test", "one")
    logging.getLogger("cortexd.test").info("one")
    shapes = [re.sub(r"\d", "9", line) for line in capsys.readouterr().err.splitlines()]
    assert shapes == ["9999-99-99 99:99:99,999 INFO    cortexd.test one"] * 2


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


class Written(io.StringIO):
    """A stream that remembers its writes."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[list[str]] = []

    def write(self, text: str) -> int:
        """Remember the lines of one write."""
        self.writes.append([line.removeprefix("<6>requests ") for line in text.splitlines()])
        return len(text)


@pytest.fixture
def stream() -> Written:
    return Written()


@pytest.fixture
def output(stream: Written) -> Iterator[Output]:
    """An output that `logging` knows as well."""
    output = Output(stream, to_journal=True)
    logger = logging.getLogger("records")
    logger.addHandler(output)
    logger.propagate = False
    yield output
    logger.removeHandler(output)


async def passes(clock: MockClock) -> None:
    """As long as lines wait for others, and a little."""
    await wait_all_tasks_blocked()
    clock.jump(JOIN_SECONDS * 1.1)
    await wait_all_tasks_blocked()


async def test_lines_that_come_close_behind_another_are_written_together(
    mock_clock: MockClock, output: Output, stream: Written, nursery: trio.Nursery
) -> None:
    nursery.start_soon(output.run)
    await wait_all_tasks_blocked()
    output.line("requests", "one")
    assert stream.writes == [["one"]], "nobody else came lately"
    output.line("requests", "two")
    output.line("requests", "three")
    assert stream.writes == [["one"]]
    await passes(mock_clock)
    assert stream.writes == [["one"], ["two", "three"]]
    output.line("requests", "four")
    assert len(stream.writes) == 2
    await passes(mock_clock)
    assert stream.writes[2:] == [["four"]]
    await passes(mock_clock)
    output.line("requests", "five")
    assert stream.writes[3:] == [["five"]], "it is quiet again"


async def test_a_record_is_written_behind_the_lines_that_came_before_it(
    mock_clock: MockClock, output: Output, stream: Written, nursery: trio.Nursery
) -> None:
    nursery.start_soon(output.run)
    await wait_all_tasks_blocked()
    for line in ("one", "two", "three"):
        output.line("requests", line)
    logging.getLogger("records").error("a record")
    output.line("requests", "four")
    await passes(mock_clock)
    assert [line for write in stream.writes for line in write] == [
        "one",
        "two",
        "three",
        "<3>records a record",
        "four",
    ]


async def test_what_is_kept_is_written_when_the_daemon_ends_or_breaks(
    mock_clock: MockClock, output: Output, stream: Written
) -> None:
    with trio.CancelScope() as daemon:  # what breaks a nursery cancels it as well
        async with trio.open_nursery() as nursery:
            nursery.start_soon(output.run)
            await wait_all_tasks_blocked()
            output.line("requests", "one")
            output.line("requests", "two")
            daemon.cancel()
    assert stream.writes == [["one"], ["two"]]
    output.line("requests", "three")
    assert stream.writes[2:] == [["three"]], "nobody is left to write what is kept"


async def test_what_is_kept_is_written_when_the_process_ends(
    mock_clock: MockClock, output: Output, stream: Written, nursery: trio.Nursery
) -> None:
    nursery.start_soon(output.run)
    await wait_all_tasks_blocked()
    output.line("requests", "one")
    output.line("requests", "two")
    logging.shutdown([weakref.ref(output)])
    assert stream.writes == [["one"], ["two"]]


async def test_no_more_than_so_many_lines_are_kept(
    mock_clock: MockClock, output: Output, stream: Written, nursery: trio.Nursery
) -> None:
    nursery.start_soon(output.run)
    await wait_all_tasks_blocked()
    for n in range(JOINED_MAX * 3):
        output.line("requests", str(n))
    assert [len(write) for write in stream.writes] == [1, JOINED_MAX, JOINED_MAX]


def test_before_there_is_a_daemon_every_line_is_written_at_once(
    output: Output, stream: Written
) -> None:
    output.line("requests", "one")
    output.line("requests", "two")
    assert stream.writes == [["one"], ["two"]]


class _Full(io.StringIO):
    def write(self, text: str) -> int:
        raise OSError(28, "No space left on device")


async def test_a_log_that_cannot_be_written_ends_nothing(mock_clock: MockClock) -> None:
    output = Output(_Full(), to_journal=False)
    output.line("requests", "one")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(output.run)
        await wait_all_tasks_blocked()
        for n in range(JOINED_MAX * 2):
            output.line("requests", str(n))
        await passes(mock_clock)
        nursery.cancel_scope.cancel()
