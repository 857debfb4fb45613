"""`cortexd status` against a daemon's answer, as text and as JSON."""

import http.server
import json
import threading
from collections.abc import Iterator

import msgspec
import pytest

from cortexd.cli.main import main
from cortexd.cli.status import print_table
from cortexd.config.schema import Neuron
from cortexd.fleet.reports import (
    Device,
    DeviceHealth,
    Discovery,
    Health,
    ModelId,
    ModelLoad,
    ModelReport,
    Servable,
)
from cortexd.fleet.view import Answered, FleetView, Missed, NeuronName, before_the_first_poll, fold

BEAST, SCOUT = NeuronName("beast"), NeuronName("scout")


def example_view() -> FleetView:
    """One healthy neuron with a model, one that never answered."""
    start = before_the_first_poll(
        (Neuron("beast", "http://beast:1"), Neuron("scout", "http://scout:1"))
    )
    model = ModelId("org/model")
    report = Answered(
        (ModelReport(model, "loaded"),),
        {model: "http://beast:1"},
        Health(
            devices=(DeviceHealth(0, vram_used_mb=4000, vram_free_mb=20000),),
            models=(ModelLoad(model, in_flight=2, queue_depth=7, max_in_flight=4),),
        ),
        Discovery(devices=(Device(0, "big", 24000),)),
    )
    return FleetView(
        {
            BEAST: fold(start.neurons[BEAST], report),
            SCOUT: fold(start.neurons[SCOUT], Missed("connection refused")),
        }
    )


@pytest.fixture
def daemon_url() -> Iterator[str]:
    """A listener that answers `/status` as the daemon does."""
    body = msgspec.json.encode(example_view())

    class Answering(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/status" else 404)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answering) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_the_table_shows_health_models_load_and_memory(
    daemon_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["status", "--url", daemon_url + "/"]) == 0
    lines = capsys.readouterr().out.splitlines()
    beast = next(line for line in lines if line.startswith("beast"))
    scout = next(line for line in lines if line.startswith("scout"))
    for cell in ("healthy", "org/model", "loaded", "2/4", "7", "20000 MB of 24000"):
        assert cell in beast
    assert "unhealthy: connection refused" in scout


def test_what_a_neuron_says_reaches_no_terminal_as_it_is(
    capsys: pytest.CaptureFixture[str],
) -> None:
    evil = ModelId("evil\x1b[2J\nFAKE")
    beast = example_view().neurons[BEAST]
    said = Servable(ok=False, reason="\x1b]0;pwn\x07")
    view = fold(beast, Answered((ModelReport(evil, "loaded", servable=said),)))
    print_table(FleetView({BEAST: view}))
    shown = capsys.readouterr().out
    assert r"evil\u001b[2J\u000aFAKE" in shown
    assert r"not servable: \u001b]0;pwn\u0007" in shown
    assert shown.isascii()
    assert not set(shown) & {"\x1b", "\x07"}


def test_json_is_the_daemons_own_answer(
    daemon_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["status", "--url", daemon_url, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["neurons"]["beast"]["healthy"] is True
    assert printed["neurons"]["scout"]["misses"] == 1


@pytest.mark.parametrize(
    "url",
    [
        *("file:///etc/passwd", "nonsense", "", "unix:"),
        *("http://", "http://h:x", "http://[::1", "http://a b"),
    ],
)
def test_an_address_that_is_none_is_wrong_usage(
    url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["status", "--url", url]) == 2
    said = capsys.readouterr()
    assert said.err == (
        "cortexd status: --url takes an address that begins with http:// or https://, or unix: and "
        "a path\n"
    )


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "http://localhost:1/", "unix:/nowhere"])
def test_without_a_daemon_it_fails_and_says_what_to_check(
    url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["status", "--url", url]) == 1
    said = capsys.readouterr().err
    assert "no answer" in said
    assert "Is the daemon running?" in said
