"""`cortexd client-config`: snippets that their clients can read, whatever the names are."""

import ast
import http.server
import json
import shlex
import subprocess
import threading
import tomllib
from collections.abc import Callable, Iterator, Mapping

import msgspec
import pytest
import yaml

from cortexd.cli.clients.snippet import KEY_PLACEHOLDER, MODEL_PLACEHOLDER, Snippet, Wanted
from cortexd.cli.clients.table import CLIENTS
from cortexd.cli.main import main

NASTY = """it's "quoted" $HOME `id` \\ #{{x}} ${{ y }} %s 'née' :"""
PLAIN = Wanted("http://127.0.0.1:31313", None, "CORTEXD_API_KEY", "org/model", 32768, 4096)
FACTS = {
    "as by default": PLAIN,
    "without limits": msgspec.structs.replace(PLAIN, context=None, output=None),
    "with a key": msgspec.structs.replace(PLAIN, key="sk-given"),
    "with nasty names": msgspec.structs.replace(PLAIN, key=f"sk {NASTY}", model=NASTY),
}


class WithSecrets(yaml.SafeLoader):
    """YAML as Home Assistant reads it: `!secret name` is looked up elsewhere."""


WithSecrets.add_constructor("!secret", lambda loader, node: f"secret {node.value}")


def parsed(snippet: Snippet) -> object:
    """What the program that reads a snippet understands of it; an exception if it cannot."""
    match snippet.language:
        case "json":
            return json.loads(snippet.text)
        case "toml":
            return tomllib.loads(snippet.text)
        case "yaml":
            return yaml.load(snippet.text, WithSecrets)
        case "python":
            return ast.parse(snippet.text)
        case "env":
            return dict(line.split("=", 1) for line in snippet.text.splitlines())
        case "sh":
            subprocess.run(["sh", "-n"], input=snippet.text, text=True, check=True)
            return [shlex.split(line) for line in snippet.text.replace("\\\n", "").splitlines()]


def texts_in(value: object) -> Iterator[str]:
    """Every text in a parsed snippet, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, ast.AST):
        for node in ast.walk(value):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value
    elif isinstance(value, Mapping):
        for pair in value.items():
            yield from texts_in(list(pair))
    elif isinstance(value, list):
        for each in value:
            yield from texts_in(each)


@pytest.mark.parametrize("facts", FACTS.values(), ids=FACTS)
@pytest.mark.parametrize("client", CLIENTS)
def test_every_snippet_is_understood_and_names_the_model_and_the_gateway(
    client: str, facts: Wanted
) -> None:
    snippets = CLIENTS[client].snippets(facts)
    said = [text for snippet in snippets for text in texts_in(parsed(snippet))]
    inside_json = json.dumps(facts.model, ensure_ascii=False)[1:-1]
    assert any(facts.model in text or inside_json in text for text in said)
    assert any(facts.root in text for text in said)


@pytest.mark.parametrize("client", CLIENTS)
def test_a_key_that_was_given_is_written_as_it_is(client: str) -> None:
    snippets = CLIENTS[client].snippets(FACTS["with nasty names"])
    said = [text for snippet in snippets for text in texts_in(parsed(snippet))]
    if client == "zed":  # reads keys from its own keychain and from a variable alone
        assert not any(f"sk {NASTY}" in text for text in said)
    else:
        assert any(f"sk {NASTY}" in text for text in said)


@pytest.mark.parametrize("client", CLIENTS)
def test_no_key_is_made_up(client: str) -> None:
    """A variable where the client reads one, else words that nobody takes for a key."""
    text = "".join(snippet.text for snippet in CLIENTS[client].snippets(PLAIN))
    if client != "zed":
        assert "CORTEXD_API_KEY" in text or KEY_PLACEHOLDER in text
    assert "sk-" not in text


def test_each_client_gets_its_base_url_with_v1_or_without() -> None:
    """Anthropic's programs append /v1/messages, OpenAI's /chat/completions."""
    for name, client in CLIENTS.items():
        text = "".join(snippet.text for snippet in client.snippets(PLAIN))
        assert ("31313/v1" in text) is (name not in ("claude-code", "anthropic-python")), name


def test_limits_go_where_clients_look_for_them() -> None:
    [opencode] = CLIENTS["opencode"].snippets(PLAIN)
    model = json.loads(opencode.text)["provider"]["cortexd"]["models"]["org/model"]
    assert model["limit"] == {"context": 32768, "output": 4096}
    config, _ = CLIENTS["continue"].snippets(PLAIN)
    [model] = yaml.safe_load(config.text)["models"]
    assert model["defaultCompletionOptions"] == {"contextLength": 32768, "maxTokens": 4096}
    [zed] = CLIENTS["zed"].snippets(PLAIN)
    provider = json.loads(zed.text)["language_models"]["openai_compatible"]["cortexd"]
    [model] = provider["available_models"]
    assert (model["max_tokens"], model["max_output_tokens"]) == (32768, 4096)
    [codex] = CLIENTS["codex"].snippets(PLAIN)
    assert tomllib.loads(codex.text)["model_context_window"] == 32768
    _, aider = CLIENTS["aider"].snippets(PLAIN)
    assert json.loads(aider.text)["openai/org/model"]["max_output_tokens"] == 4096


def test_claude_code_does_not_reserve_more_than_the_model_gives() -> None:
    [shell] = CLIENTS["claude-code"].snippets(PLAIN)
    assert "export CLAUDE_CODE_MAX_OUTPUT_TOKENS=4096\n" in shell.text
    [shell] = CLIENTS["claude-code"].snippets(FACTS["without limits"])
    assert "export CLAUDE_CODE_MAX_OUTPUT_TOKENS=8192\n" in shell.text


# The verb.

ENTRIES = [
    {"id": "org/draws", "loaded": True, "modalities": ["image"], "limit": {}},
    {
        "id": "org/cold",
        "loaded": False,
        "modalities": ["text"],
        "limit": {"context": 1, "output": 2},
    },
    {
        "id": "org/warm",
        "loaded": True,
        "modalities": ["text"],
        "limit": {"context": 9, "output": 3},
    },
]


@pytest.fixture
def gateway() -> Iterator[Callable[..., str]]:
    """Starts a gateway that answers `GET /v1/models` with this body, to holders of `sk-right`."""
    started = []

    def start(body: bytes) -> str:
        class Answering(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                known = self.headers["authorization"] == "Bearer sk-right"
                self.send_response(200 if known and self.path == "/v1/models" else 401)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answering)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        started.append((server, thread))
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server, thread in started:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(autouse=True)
def no_key_around(monkeypatch: pytest.MonkeyPatch) -> None:
    """The key of whoever runs the tests is none of theirs."""
    monkeypatch.delenv("CORTEXD_API_KEY", raising=False)


Output = pytest.CaptureFixture[str]


def models(*entries: object) -> bytes:
    """The answer to `GET /v1/models`."""
    return json.dumps({"object": "list", "data": entries}).encode()


def test_without_a_client_all_are_listed_with_a_line_each(capsys: Output) -> None:
    assert main(["client-config"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(CLIENTS)
    assert all(len(line.split()) > 2 for line in lines)
    assert main(["client-config", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [(each["client"], each["what"]) for each in listed] == [
        (client.name, client.what) for client in CLIENTS.values()
    ]


@pytest.mark.parametrize("client", CLIENTS)
def test_each_client_can_be_had_without_a_daemon(client: str, capsys: Output) -> None:
    assert main(["client-config", client]) == 0
    printed = capsys.readouterr()
    wanted = Wanted("http://127.0.0.1:31313", None, "CORTEXD_API_KEY", MODEL_PLACEHOLDER)
    assert printed.out == "".join(each.text for each in CLIENTS[client].snippets(wanted))
    assert "note: no key is known, so the daemon was not asked" in printed.err


def test_the_first_loaded_model_for_text_is_taken_with_its_limits(
    gateway: Callable[..., str], capsys: Output
) -> None:
    url = gateway(models(*ENTRIES))
    assert main(["client-config", "opencode", "--url", f"{url}/v1/", "--key", "sk-right"]) == 0
    config = json.loads(capsys.readouterr().out)
    assert config["model"] == "cortexd/org/warm"
    provider = config["provider"]["cortexd"]
    assert provider["options"] == {"baseURL": f"{url}/v1", "apiKey": "sk-right"}
    assert provider["models"]["org/warm"]["limit"] == {"context": 9, "output": 3}


def test_the_limits_of_a_model_that_was_named_are_found(
    gateway: Callable[..., str], capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the key from a variable, which then is what the snippet names."""
    url = gateway(models(*ENTRIES))
    monkeypatch.setenv("MY_KEY", "sk-right")
    arguments = ["--url", url, "--key-env", "MY_KEY", "--model", "org/cold"]
    assert main(["client-config", "opencode", *arguments]) == 0
    provider = json.loads(capsys.readouterr().out)["provider"]["cortexd"]
    assert provider["options"]["apiKey"] == "{env:MY_KEY}"
    assert provider["models"]["org/cold"]["limit"] == {"context": 1, "output": 2}


@pytest.mark.parametrize(
    ("body", "key", "flags", "note"),
    [
        (models(*ENTRIES), "sk-wrong", [], "does not take this key: put in a model yourself."),
        (models(), "sk-right", [], "the daemon has no model for this key: put in"),
        (models(ENTRIES[0]), "sk-right", [], "the daemon has no model for this key: put in"),
        (b"<html>", "sk-right", [], "no cortexd answers at http://127.0.0.1"),
        (b'{"data": 1}', "sk-right", [], "no cortexd answers at http://127.0.0.1"),
        (models(), "sk-right", ["--model", "m"], "m is not among the models that this key may use"),
    ],
)
def test_a_daemon_that_is_no_help_is_told_and_the_snippet_printed_all_the_same(
    gateway: Callable[..., str],
    capsys: Output,
    body: bytes,
    key: str,
    flags: list[str],
    note: str,
) -> None:
    assert main(["client-config", "curl", "--url", gateway(body), "--key", key, *flags]) == 0
    printed = capsys.readouterr()
    assert note in printed.err
    assert '"model": "m"' in printed.out if flags else MODEL_PLACEHOLDER in printed.out


def test_json_has_the_snippets_and_the_notes(capsys: Output) -> None:
    assert main(["client-config", "continue", "--json", "--model", "m"]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    answer = json.loads(printed.out)
    assert answer["client"] == "continue"
    assert [each["where"] for each in answer["snippets"]] == [
        "~/.continue/config.yaml",
        "~/.continue/.env",
    ]
    assert any("limits are not known" in note for note in answer["notes"])


@pytest.mark.parametrize(
    "flags",
    [
        ["--url", "127.0.0.1:31313"],
        ["--url", "http://a b"],
        ["--key-env", "sk-live-1234"],
        ["--key", ""],
        ["--key", "a\nb"],
        ["--model", "a\x00b"],
        ["--key", "a", "--key-env", "B"],
        ["--client"],
    ],
)
def test_what_cannot_be_written_is_refused(flags: list[str], capsys: Output) -> None:
    assert main(["client-config", "curl", *flags]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err


def test_a_client_that_is_not_known_is_refused_with_those_that_are(capsys: Output) -> None:
    assert main(["client-config", "emacs"]) == 2
    assert "claude-code" in capsys.readouterr().err


def test_a_mistake_does_not_repeat_the_key(capsys: Output) -> None:
    """Somebody may give the key where the variable's name belongs."""
    assert main(["client-config", "curl", "--key-env", "sk-live-1234"]) == 2
    assert "sk-live" not in capsys.readouterr().err
