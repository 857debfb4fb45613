"""An engine beside the demo, played by a small program: found, started, watched and ended."""

import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cortexd.cli.main import main
from cortexd.demo.engine import EngineProblem, model_at, name_of, program_at, running

PATIENCE_SECONDS = 20

FAKE = """\
#!{python}
import http.server, json, os, signal, sys
before_it_serves = {before!r}
exec(before_it_serves)
class Engine(http.server.BaseHTTPRequestHandler):
    asked = 0
    def do_GET(self):
        Engine.asked += 1
        self.send_response(503 if self.path != "/health" or Engine.asked <= 2 else 200)
        self.end_headers()
port = int(sys.argv[sys.argv.index("--port") + 1])
print(json.dumps(sys.argv[1:]), flush=True)
http.server.HTTPServer(("127.0.0.1", port), Engine).serve_forever()
"""


def fake_engine(folder: Path, *, before: str = "") -> Path:
    """A program that loads for as long as it was asked twice; `before` is what it does first."""
    program = folder / "llama-server"
    program.write_text(FAKE.format(python=sys.executable, before=before))
    program.chmod(0o755)
    return program


def a_model(folder: Path) -> Path:
    """A file that begins as a model does."""
    model = folder / "Tiny Model, v1.gguf"
    model.write_bytes(b"GGUF and so on")
    return model


def is_gone(pid: int) -> bool:
    """Whether a process has ended, or does so in a while."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([handle], [], [], PATIENCE_SECONDS)[0])
    finally:
        os.close(handle)


def test_a_program_is_taken_from_path_or_from_where_it_is_said_to_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = fake_engine(tmp_path)
    assert program_at(str(program)) == program
    monkeypatch.setenv("PATH", str(tmp_path))
    assert program_at(None) == program


def test_a_program_that_is_not_there_is_named_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EngineProblem, match=r"no llama-server in PATH[^$]*--engine-path PATH$"):
        program_at(None)
    with pytest.raises(EngineProblem, match="nowhere: there is no such file"):
        program_at(str(tmp_path / "nowhere"))
    with pytest.raises(EngineProblem, match="it is no program that can be run"):
        program_at(str(a_model(tmp_path)))


def test_a_file_that_is_no_model_is_not_tried(tmp_path: Path) -> None:
    assert model_at(str(a_model(tmp_path))).is_absolute()
    with pytest.raises(EngineProblem, match="No such file"):
        model_at(str(tmp_path / "missing.gguf"))
    with pytest.raises(EngineProblem, match="directory"):
        model_at(str(tmp_path))
    other = tmp_path / "model.safetensors"
    other.write_bytes(b"\x08\x00\x00\x00")
    with pytest.raises(EngineProblem, match="it is no GGUF file"):
        model_at(str(other))


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("Qwen3-8B-Q4_K_M.gguf", "local/Qwen3-8B-Q4_K_M"),
        ("Tiny Model, v1.gguf", "local/Tiny-Model-v1"),
        ('it\'s "$HOME".gguf', "local/it-s-HOME"),
        ("模型.gguf", "local/model"),
    ],
)
def test_a_model_is_called_by_its_file_and_fits_every_shell(file: str, name: str) -> None:
    assert name_of(Path("/models") / file) == name


@pytest.mark.slow
def test_an_engine_is_waited_for_while_it_loads_and_is_gone_afterwards(tmp_path: Path) -> None:
    model, log = a_model(tmp_path), tmp_path / "engine.log"
    with running(fake_engine(tmp_path), model, log) as engine:
        options = json.loads(log.read_text().splitlines()[0])
        assert engine.url == f"http://127.0.0.1:{options[options.index('--port') + 1]}"
        assert options[options.index("--alias") + 1] == engine.model == "local/Tiny-Model-v1"
        assert options[options.index("--model") + 1] == str(model)
        assert "--metrics" in options
        assert log.read_text().count('"GET /health') == 3
    assert is_gone(engine.pid)


@pytest.mark.slow
def test_an_engine_that_does_not_want_to_end_is_killed(tmp_path: Path) -> None:
    program = fake_engine(tmp_path, before="signal.signal(signal.SIGTERM, signal.SIG_IGN)")
    with running(program, a_model(tmp_path), tmp_path / "engine.log") as engine:
        pass
    assert is_gone(engine.pid)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("before", "how"),
    [
        ("print(*range(30), sep='\\n'); sys.exit(7)", "with exit code 7"),
        ("print(*range(30), sep='\\n', flush=True); os.abort()", f"by signal {signal.SIGABRT:d}"),
    ],
)
def test_the_last_lines_of_an_engine_that_dies_at_the_start_say_why(
    tmp_path: Path, before: str, how: str
) -> None:
    program = fake_engine(tmp_path, before=before)
    with (
        pytest.raises(EngineProblem) as problem,
        running(program, a_model(tmp_path), tmp_path / "engine.log"),
    ):
        pass
    first, *lines = str(problem.value).splitlines()
    assert first == f"llama-server ended {how} as it started. Its last lines:"
    assert lines == [f"  {number}" for number in range(18, 30)]


@pytest.mark.slow
def test_an_engine_does_not_outlive_a_demo_that_was_killed(tmp_path: Path) -> None:
    run = (
        "import pathlib, sys; from cortexd.demo.engine import running\n"
        "with running(*map(pathlib.Path, sys.argv[1:])) as engine:\n"
        "    print(engine.pid, flush=True); sys.stdin.read()"
    )
    arguments = [fake_engine(tmp_path), a_model(tmp_path), tmp_path / "engine.log"]
    with subprocess.Popen(
        [sys.executable, "-c", run, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as demo:
        assert demo.stdout is not None
        pid = int(demo.stdout.readline())
        demo.kill()
    assert is_gone(pid)


ANY_PORTS = ("--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0")


@pytest.mark.parametrize(
    ("flags", "advice"),
    [
        (["--model", "m.gguf"], "Add: --engine llama-server"),
        (["--engine-path", "/bin/true"], "Add: --engine llama-server"),
        (["--engine", "llama-server"], "Add: --model FILE.gguf"),
    ],
)
def test_half_an_engine_is_told_what_is_missing(
    flags: list[str], advice: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["demo", *ANY_PORTS, *flags]) == 2
    assert advice in capsys.readouterr().err


@pytest.mark.slow
def test_a_demo_whose_engine_dies_does_not_begin(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    program = fake_engine(tmp_path, before="sys.exit('no memory for this model')")
    flags = ["--engine", "llama-server", "--engine-path", str(program)]
    assert main(["demo", *ANY_PORTS, *flags, "--model", str(a_model(tmp_path))]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.endswith("Its last lines:\n  no memory for this model\n")
