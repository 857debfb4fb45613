"""`cortexd models`, `load`, `unload`, `pin`, `drain`, `undrain` against a served admin socket."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trio

from cortexd.cli import admin_client, drain
from cortexd.cli.fleet_tables import duration
from cortexd.cli.main import INTERRUPTED, main
from cortexd.fleet.operations import ModelLine, NeuronLine, NotDone
from tests.support.fake_operations import FakeOperations, admin_socket
from tests.test_manual import blocks, page

ROOT = Path(__file__).resolve().parents[2]
EVERY_VERB = [
    ["models"],
    ["load", "org/fern"],
    ["unload", "org/oak"],
    ["pin", "org/oak", "beast"],
    ["drain", "beast"],
    ["undrain", "beast"],
]
Captured = pytest.CaptureFixture[str]


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the admin socket is, as the environment says it."""
    path = tmp_path / "admin.sock"
    monkeypatch.setenv(admin_client.SOCKET_VARIABLE, str(path))
    return path


@pytest.fixture
def operations(path: Path) -> Iterator[FakeOperations]:
    """A served fleet."""
    operations = FakeOperations()
    with admin_socket(operations, path):
        yield operations


def row(text: str, first: str) -> str:
    """The row that begins with this word, one space between its words."""
    [found] = [line for line in text.splitlines() if line.startswith(first)]
    return " ".join(found.split())


@pytest.mark.usefixtures("operations")
def test_models_shows_models_and_neurons(capsys: Captured) -> None:
    assert main(["models"]) == 0
    shown = capsys.readouterr().out
    assert row(shown, "org/oak") == "org/oak beast loaded 0,1 pinned 36000 MB 2 0"
    assert row(shown, "org/fern") == "org/fern - cold 0 0 can run on beast, scout"
    assert row(shown, "beast") == "beast healthy closed 0 0 13152 MB of 49152"
    assert row(shown, "scout").startswith("scout unhealthy open 0 0 restart advised")


def test_what_a_neuron_calls_its_models_reaches_no_terminal_as_it_is(
    operations: FakeOperations, capsys: Captured
) -> None:
    """It could set colours and titles, or write rows of its own."""
    evil = "evil\x1b[31m\x1b]0;pwn\x07\nFAKE \u202e"
    operations.lines = [ModelLine(evil, "beast", "loaded", note=evil)]
    assert main(["models"]) == 0
    shown = capsys.readouterr().out
    harmless = r"evil\u001b[31m\u001b]0;pwn\u0007\u000aFAKE \u202e"
    assert row(shown, "evil") == f"{harmless} beast loaded 0 0 {harmless}"
    assert "FAKE" not in {line.split(" ")[0] for line in shown.splitlines()}


def test_the_recorded_tables_of_the_manual_are_what_models_prints(
    operations: FakeOperations, capsys: Captured
) -> None:
    operations.lines = [
        ModelLine("sim/oak-32b", "beast", "loaded", (0, 1), 36_000, idle_seconds=2, pinned=True),
        ModelLine("sim/moss-1b", "scout", "loaded", (0,), 1_200, idle_seconds=6),
        ModelLine("sim/elm-14b", "scout", "loading", (0,), 9_000, waiting=3, eta_seconds=31),
        ModelLine("sim/fern-8b", "mini", "loaded", (0,), 6_500, idle_seconds=6),
        ModelLine("sim/yew-3b", "", "cold", (), 4_000, note="can run on beast, scout, mini"),
    ]
    operations.fleet = {
        line.neuron: line
        for line in (
            NeuronLine("beast", healthy=True, vram_total_mb=49_152, vram_free_mb=13_152),
            NeuronLine(
                "scout", healthy=True, load_cycles=1, vram_total_mb=12_288, vram_free_mb=2_088
            ),
            NeuronLine(
                "mini", healthy=True, draining=True, vram_total_mb=8_192, vram_free_mb=1_692
            ),
        )
    }
    assert main(["models"]) == 0
    printed = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    [recorded] = [
        each for each in blocks(page("command-line.md"), "console") if "cortexd models" in each
    ]
    assert recorded.splitlines()[1:] == printed


@pytest.mark.parametrize("arguments", EVERY_VERB, ids=lambda arguments: arguments[0])
@pytest.mark.usefixtures("operations")
def test_json_is_one_object_of_rows_alone_on_standard_output(
    arguments: list[str], capsys: Captured
) -> None:
    assert main([*arguments, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown.keys() <= {"models", "neurons"}
    assert all(rows and isinstance(rows[0], dict) for rows in shown.values())
    assert len(shown) == (2 if arguments == ["models"] else 1)


@pytest.mark.parametrize(
    ("arguments", "asked"),
    [
        (["load", "org/fern"], ("load", "org/fern", None)),
        (["load", "org/fern", "--neuron", "beast"], ("load", "org/fern", "beast")),
        (["unload", "org/oak"], ("unload", "org/oak", None)),
        (["unload", "org/oak", "--neuron", "beast"], ("unload", "org/oak", "beast")),
        (["pin", "org/oak", "beast", "scout"], ("pin", "org/oak", ("beast", "scout"))),
        (["pin", "org/oak", "--nowhere"], ("pin", "org/oak", ())),
        (["pin", "org/oak", "--clear"], ("pin", "org/oak", None)),
        (["drain", "beast"], ("drain", "beast")),
        (["undrain", "beast"], ("undrain", "beast")),
    ],
)
def test_a_verb_asks_for_what_it_says(
    operations: FakeOperations, arguments: list[str], asked: tuple[object, ...], capsys: Captured
) -> None:
    assert main(arguments) == 0
    assert operations.asked == [asked]
    shown = capsys.readouterr().out
    assert str(asked[1]) in shown


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["beast", "scout"], "org/oak: pinned to beast, scout"),
        (["scout", "beast", "scout"], "org/oak: pinned to scout, beast"),
        (["--nowhere"], "org/oak: pinned to no neuron"),
        (["--clear"], "org/oak: pinned as in the catalogue"),
    ],
)
@pytest.mark.usefixtures("operations")
def test_pin_says_where_the_model_belongs_now(
    flags: list[str], said: str, capsys: Captured
) -> None:
    assert main(["pin", "org/oak", *flags]) == 0
    shown = capsys.readouterr().out
    assert shown.splitlines()[0] == said
    assert row(shown, "org/oak ").startswith("org/oak beast loaded")


@pytest.mark.usefixtures("operations")
def test_a_pinned_name_without_rows_is_no_empty_table(capsys: Captured) -> None:
    assert main(["pin", "org/gone", "beast"]) == 0
    assert capsys.readouterr().out == "org/gone: pinned to beast\n"


@pytest.mark.parametrize("flags", [[], ["beast", "--clear"], ["--nowhere", "--clear"]])
def test_pin_wants_one_of_its_three_ways(
    operations: FakeOperations, flags: list[str], capsys: Captured
) -> None:
    """`pin MODEL` alone could be meant as either of two opposites."""
    assert main(["pin", "org/oak", *flags]) == 2
    assert "--nowhere, or --clear" in capsys.readouterr().err
    assert operations.asked == []


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["org/fern"], "waiting for org/fern: about 40 s."),
        (["org/fern", "--neuron", "scout"], "waiting for org/fern: about 40 s."),
        (["org/oak"], "org/oak is loaded already."),
        (["org/oak", "--neuron", "scout"], "waiting for org/oak: a time that is not known yet."),
        (["tree"], "tree is loaded already."),
    ],
)
@pytest.mark.usefixtures("operations")
def test_load_says_how_long_it_is_expected_to_take(
    flags: list[str], said: str, capsys: Captured
) -> None:
    assert main(["load", *flags]) == 0
    assert capsys.readouterr().err.startswith(f"cortexd load: {said}")


@pytest.mark.usefixtures("operations")
def test_nobody_is_told_to_wait_for_a_model_that_nobody_knows(capsys: Captured) -> None:
    assert main(["load", "org/new"]) == 0
    assert capsys.readouterr().err == ""


def test_a_load_that_is_under_way_tells_more_than_what_one_would_take(
    operations: FakeOperations, capsys: Captured
) -> None:
    operations.lines = [
        ModelLine("org/fern", "beast", "cold", eta_seconds=300),
        ModelLine("org/fern", "scout", "loading", eta_seconds=5),
    ]
    assert main(["load", "org/fern", "--neuron", "scout"]) == 0
    assert "about 5 s" in capsys.readouterr().err


def test_unload_says_what_it_waits_for(operations: FakeOperations, capsys: Captured) -> None:
    assert main(["unload", "org/oak", "--neuron", "beast"]) == 0
    assert "waiting for what org/oak has in flight: 2." in capsys.readouterr().err
    assert main(["unload", "org/oak", "--neuron", "scout"]) == 0
    assert capsys.readouterr().err == ""
    assert len(operations.asked) == 2


def test_drain_waits_until_nothing_is_left(
    operations: FakeOperations, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.setattr(drain, "_LOOK_SECONDS", 0.01)
    operations.in_flight_to_come = [3, 2, 2, 0, 9]
    assert main(["drain", "beast", "--wait"]) == 0
    captured = capsys.readouterr()
    assert captured.err == "cortexd drain: beast has 2 in flight.\n"
    assert row(captured.out, "beast").startswith("beast healthy, draining closed 0 ")


def test_drain_without_wait_does_not_wait(operations: FakeOperations, capsys: Captured) -> None:
    operations.in_flight_to_come = [3, 0]
    assert main(["drain", "beast"]) == 0
    assert row(capsys.readouterr().out, "beast").startswith("beast healthy, draining closed 3 ")


def test_drain_does_not_wait_for_a_neuron_that_drains_no_more(
    operations: FakeOperations, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.setattr(operations, "drain", lambda neuron: None)
    assert main(["drain", "beast", "--wait"]) == 1
    assert "beast is not draining any more" in capsys.readouterr().err


def test_what_was_not_done_is_one_line_with_what_to_do(
    operations: FakeOperations, capsys: Captured
) -> None:
    operations.refusal = NotDone("org/fern can run nowhere.", "Free 9000 MB on scout.")
    assert main(["load", "org/fern", "--json"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines()[-1] == (
        "cortexd load: org/fern can run nowhere. Free 9000 MB on scout."
    )
    assert main(["drain", "ghost"]) == 1
    assert capsys.readouterr().err == (
        "cortexd drain: No neuron is called ghost. Name one of: beast, scout.\n"
    )


def test_what_the_daemon_does_not_understand_is_told(capsys: Captured, path: Path) -> None:
    with admin_socket(FakeOperations(), path):
        assert main(["drain", ""]) == 1
    assert "length >= 1" in capsys.readouterr().err


def test_the_socket_is_the_flags_before_the_environments(
    tmp_path: Path, path: Path, capsys: Captured
) -> None:
    other = tmp_path / "other.sock"
    with admin_socket(FakeOperations(), other):
        assert main(["models", "--socket", str(other)]) == 0
        assert main(["models"]) == 1
    assert f"no admin socket {path}" in capsys.readouterr().err


def test_without_flag_and_variable_it_is_the_units(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.delenv(admin_client.SOCKET_VARIABLE)
    monkeypatch.setattr(admin_client, "DEFAULT_SOCKET", str(path))
    with admin_socket(FakeOperations(), path):
        assert main(["models"]) == 0
    assert "beast" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", EVERY_VERB, ids=lambda arguments: arguments[0])
def test_without_a_daemon_every_verb_fails_in_one_line(
    arguments: list[str], path: Path, capsys: Captured
) -> None:
    assert main(arguments) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"cortexd {arguments[0]}: there is no admin socket {path}. Is ")
    assert captured.err.count("\n") == 1
    assert "Outside of systemd it has one only where gateway.admin_socket is set;" in captured.err


def test_a_socket_that_a_dead_daemon_left_is_told_apart(path: Path, capsys: Captured) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    assert main(["models"]) == 1
    assert "nobody listens on" in capsys.readouterr().err


def answering(path: Path, answer: bytes | None, done: threading.Event) -> threading.Thread:
    """A listener that reads a head, answers with these bytes and hangs up; None: it is silent."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()

    def serve() -> None:
        with listener, listener.accept()[0] as peer:
            if answer is None:
                done.wait(10)
            else:
                peer.recv(65_536)
                peer.sendall(answer)

    thread = threading.Thread(target=serve)
    thread.start()
    return thread


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"", "hung up"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{", "hung up"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi", "is not the admin socket"),
        (b"HTTP/1.1 502 Bad\r\ncontent-length: 2\r\n\r\n{}", "is not the admin socket"),
        (b"SSH-2.0-x\r\n", "is not the admin socket"),
        (None, "no answer within 0.2 s"),
    ],
)
def test_a_daemon_that_answers_badly_or_not_at_all_fails_in_one_line(
    path: Path,
    answer: bytes | None,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Captured,
) -> None:
    monkeypatch.setattr(admin_client, "ANSWER_SECONDS", 0.2 if answer is None else 10)
    done = threading.Event()
    thread = answering(path, answer, done)
    assert main(["models"]) == 1
    done.set()
    thread.join(10)
    captured = capsys.readouterr().err
    assert said in captured
    assert captured.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (PermissionError(13, "Permission denied"), "as the user that cortexd runs as, or as root"),
        (BlockingIOError(11, "Try again"), "takes no more connections"),
        (OSError("AF_UNIX path too long"), "cannot use /s: AF_UNIX path too long"),
        (BrokenPipeError(32, "Broken pipe"), "hung up"),
    ],
)
def test_other_faults_say_what_to_do(error: OSError, said: str) -> None:
    assert said in admin_client._why(error, "/s", 10)


def test_no_fault_of_the_socket_is_taken_for_a_bug(capsys: Captured) -> None:
    assert main(["models", "--socket", "/" + "x" * 200]) == 1
    assert "path too long" in capsys.readouterr().err


def wait_for_line(output: "subprocess.Popen[str]", word: str) -> str:
    """The line of standard error that has a word in it."""
    assert output.stderr is not None
    for line in output.stderr:
        if word in line:
            return line
    pytest.fail(f"ended without saying {word}")


def test_ctrl_c_ends_the_waiting_and_not_the_load(path: Path) -> None:
    operations = FakeOperations(gate := trio.Event())
    tokens: list[trio.lowlevel.TrioToken] = []
    begun = threading.Event()
    load: Callable[[str, str | None], object] = operations.load

    async def noticed(model: str, neuron: str | None) -> object:
        tokens.append(trio.lowlevel.current_trio_token())
        begun.set()
        return await load(model, neuron)  # type: ignore[misc]

    operations.load = noticed  # type: ignore[method-assign,assignment]
    command = [sys.executable, "-m", "cortexd", "load", "org/fern"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with (
        admin_socket(operations, path),
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        ) as verb,
    ):
        assert "about 40 s" in wait_for_line(verb, "waiting for org/fern")
        assert begun.wait(10)
        verb.send_signal(signal.SIGINT)
        assert "the load goes on" in wait_for_line(verb, "no longer waiting")
        assert verb.wait(10) == INTERRUPTED
        assert not operations.ended.is_set()
        tokens[0].run_sync_soon(gate.set)
        assert main(["models"]) == 0
    assert operations.asked == [("load", "org/fern", None)]
    assert operations.ended.is_set()


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (None, ""),
        (0.4, "0 s"),
        (119, "119 s"),
        (120, "2 min"),
        (7_199, "120 min"),
        (7_200, "2 h"),
        (172_799, "48 h"),
        (172_800, "2 d"),
    ],
)
def test_durations_are_told_in_the_unit_that_tells_most(seconds: float | None, words: str) -> None:
    assert duration(seconds) == words
