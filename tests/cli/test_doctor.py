"""`cortexd doctor`: asked as a user does, of servers on real sockets."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
import trio
import yaml

from cortexd.cli.doctor import examine
from cortexd.cli.main import main
from cortexd.config.load import load
from cortexd.config.schema import Neuron
from cortexd.demo.hardware import SimulatedModel
from cortexd.demo.neuron import SimulatedNeuron
from cortexd.fleet.neuron import REPLY_BYTES_MAX
from tests.fleet.engines.recorded import BREAKS_OFF, SILENT, Recorded, Reply
from tests.fleet.engines.test_llama_router import models
from tests.fleet.engines.test_llama_server import ALL
from tests.fleet.engines.test_ollama import RESIDENT, TAGS
from tests.fleet.scripted import scripted
from tests.support.fake_neuron import running

LISTED: Reply = (200, {"object": "list", "data": [{"id": "a\u001b[2J\u202e"}]})


async def doctor(recorded: Recorded, *flags: str) -> tuple[int, str]:
    """Run the verb against a played server; its exit code, and the server's address."""
    async with scripted(recorded.script, within_seconds=30) as server:
        arguments = ["doctor", f"{server.url}/v1", *flags]
        return await trio.to_thread.run_sync(partial(main, arguments)), server.url


def pasted(output: str, after: str) -> object:
    """What is printed to be pasted, read as YAML."""
    return yaml.safe_load(output.partition(after)[2].partition("\n\nfor ")[0])


async def test_it_names_the_kind_and_prints_what_the_configuration_takes(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code, url = await doctor(Recorded(ALL))
    output = capsys.readouterr().out
    assert code == 0
    assert f"{url} is of kind llama-server" in output
    assert '"endless"  loaded, context 2048, 2 at once' in output
    assert "would cost tokens" in output
    assert "catalogue" not in output
    neurons = pasted(output, "for the configuration:")
    assert neurons == {"neurons": [{"name": "127-0-0-1", "endpoint": url, "kind": "llama-server"}]}
    path = tmp_path / "cortexd.yaml"
    directory = {"ledger": {"directory": str(tmp_path)}}
    path.write_text(yaml.safe_dump({**neurons, **directory}))
    assert load(str(path), {}, {}).config.neurons[0].kind == "llama-server"


async def test_of_an_engine_that_loads_it_prints_the_catalogue_too(
    capsys: pytest.CaptureFixture[str],
) -> None:
    recorded = Recorded(
        {
            "GET /v1/models": (200, {"object": "list", "data": []}),
            "GET /api/version": (200, {"version": "0.12.0"}),
            "GET /api/tags": TAGS,
            "GET /api/ps": RESIDENT,
        }
    )
    code, url = await doctor(recorded, "--name", "attic")
    output = capsys.readouterr().out
    assert code == 0
    assert pasted(output, "for the configuration:") == {
        "neurons": [{"name": "attic", "endpoint": url, "kind": "ollama"}]
    }
    assert pasted(output, "when they are asked for:") == {
        "models": [{"id": "qwen3:8b"}, {"id": "llama3.2:latest"}]
    }
    assert "set max_in_flight" in output
    assert not recorded.sent, "a question must not make the engine do anything"


async def test_a_neuron_of_the_neuron_protocol_is_recognized(
    capsys: pytest.CaptureFixture[str],
) -> None:
    neuron = SimulatedNeuron("beast", [SimulatedModel("sim/oak")])
    async with running(neuron):
        assert await trio.to_thread.run_sync(main, ["doctor", neuron.url]) == 0
    output = capsys.readouterr().out
    assert "is of kind neuron" in output
    assert '"sim/oak"  loaded' in output


async def test_as_json_it_tells_the_same(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    key = tmp_path / "key"
    key.write_text("sk-neuron\n")
    flags = ("--json", "--api-key-file", str(key))
    recorded = Recorded({"GET /v1/models": models(a="unloaded")})
    code, url = await doctor(recorded, *flags)
    found = json.loads(capsys.readouterr().out)
    assert (code, found["kind"], found["url"]) == (0, "llama-router", url)
    assert found["models"] == [
        {"id": "a", "status": "unloaded", "context": None, "max_in_flight": None}
    ]
    assert found["neuron"]["api_key"] == {"file": str(key)}
    assert any("once one is loaded" in each for each in found["unknown"])
    assert "sk-neuron" not in json.dumps(found)


async def test_a_server_that_stops_answering_is_named_all_the_same(
    capsys: pytest.CaptureFixture[str],
) -> None:
    recorded = Recorded(
        {"GET /v1/models": (200, {"data": []}), "GET /running": (200, {"running": 1})}
    )
    code, _ = await doctor(recorded)
    output = capsys.readouterr().out
    assert code == 0
    assert "is of kind llama-swap" in output
    assert "what it has: it answered what cannot be understood" in output


async def test_a_servers_own_words_cannot_move_the_cursor(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, _ = await doctor(Recorded({"GET /v1/models": LISTED}))
    output = capsys.readouterr().out
    assert code == 0
    assert '"a\\u001b[2J\\u202e"' in output
    assert all(each.isprintable() or each == "\n" for each in output)


@pytest.mark.parametrize(
    ("replies", "says"),
    [
        ({}, "has no list of models"),
        ({"GET /v1/models": (401, {"error": "Unauthorized"})}, "it wants a key: /v1/models"),
    ],
)
async def test_what_is_no_neuron_ends_with_1(
    capsys: pytest.CaptureFixture[str], replies: dict[str, Reply], says: str
) -> None:
    code, _ = await doctor(Recorded(replies))
    assert code == 1
    assert says in capsys.readouterr().out


def test_an_address_where_nobody_is_ends_with_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "http://127.0.0.1:1"]) == 1
    said = capsys.readouterr().out
    assert said == "http://127.0.0.1:1 is no neuron: nothing answers there (connection refused).\n"


async def test_a_server_that_closes_without_a_word_is_not_said_to_be_absent(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, _ = await doctor(Recorded({}, otherwise=BREAKS_OFF))
    assert code == 1
    assert "no whole answer came from there; /v1/models: " in capsys.readouterr().out


async def test_of_a_server_that_does_not_come_to_an_end_it_says_so(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with scripted(Recorded({}, otherwise=SILENT).script, within_seconds=30) as server:
        silent = await examine(Neuron("attic", server.url), {}, question_seconds=0.05)
    assert silent.kind is None
    said = "no whole answer came from there; /v1/models: no whole answer within 0.05 s"
    assert silent.why == said
    large = (200, b"[" * (REPLY_BYTES_MAX + 1))
    code, _ = await doctor(Recorded({"GET /v1/models": large}))
    assert code == 1
    assert "there; /v1/models: it answered with more than" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--name", "a b"], "--name: expected 1 to 64 printable ASCII characters without spaces"),
        (["--name", ""], "--name: expected 1 to 64 printable ASCII characters without spaces"),
        (["--api-key-file", "empty"], "--api-key-file: the secret is empty; "),
        (["--api-key-file", "gone"], "--api-key-file: the file does not exist; "),
    ],
)
def test_nothing_is_printed_that_the_configuration_refuses(
    flags: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").touch()
    assert main(["doctor", "http://127.0.0.1:1", *flags]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(f"cortexd doctor: {said}")


async def test_the_file_of_a_key_is_printed_so_that_any_folder_finds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The configuration looks for it from a folder of its own."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "key").write_text("sk-neuron\n")
    code, url = await doctor(Recorded(ALL), "--api-key-file", "key")
    assert code == 0
    assert pasted(capsys.readouterr().out, "for the configuration:") == {
        "neurons": [
            {
                "name": "127-0-0-1",
                "endpoint": url,
                "kind": "llama-server",
                "api_key": {"file": str(tmp_path / "key")},
            }
        ]
    }


@pytest.mark.parametrize(
    "arguments",
    [
        ["127.0.0.1:8080"],
        ["http://user:secret@host"],
        ["http://host", "--api-key-file", "/nowhere/key"],
    ],
)
def test_what_cannot_be_asked_ends_with_2(
    capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    assert main(["doctor", *arguments]) == 2
    said = capsys.readouterr().err
    assert said.startswith("cortexd doctor: ")
    assert "secret" not in said
