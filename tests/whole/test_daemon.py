"""The daemon as a process: how it starts, stops, is found, and what it tells about itself."""

import os
import re
import signal
import socket
import ssl
import sys
from pathlib import Path

import httpx
import msgspec
import pytest
import trio
import trustme
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, ResponseReceived, StreamEnded

from cortexd.demo.switches import BreakKind, Broken
from tests.support.daemon_process import (
    ANY_PORTS,
    CAPPED_KEY,
    COMMAND,
    chat,
    configured,
    run_cortexd,
    serving,
    started,
)
from tests.support.fake_neuron import fake_neuron
from tests.support.raw_client import raw_client

pytestmark = pytest.mark.slow

BIG_KEY = {**CAPPED_KEY, "hard_cap": 100_000}
POLLING = {"interval_seconds": 0.1, "timeout_seconds": 2}


async def test_it_announces_its_listeners_as_the_contract_says(tmp_path: Path) -> None:
    async with serving(tmp_path, {}) as daemon:
        gateway, metrics = daemon.lines
        assert re.fullmatch(r"listening gateway http://127\.0\.0\.1:[1-9]\d*", gateway)
        assert re.fullmatch(r"listening metrics http://127\.0\.0\.1:[1-9]\d*", metrics)


async def test_flags_win_over_the_environment_and_that_over_the_file(tmp_path: Path) -> None:
    addresses = {"listen": "127.0.0.1:1", "metrics_listen": "127.0.0.1:2"}
    async with serving(
        tmp_path,
        {},
        gateway=addresses,
        flags=("--metrics-listen", "127.0.0.1:0"),
        environment={"CORTEXD_GATEWAY__LISTEN": "127.0.0.1:0"},
    ) as daemon:
        assert not daemon.gateway.endswith(":1")
        assert not daemon.metrics.endswith(":2")


async def test_a_bad_configuration_is_reported_whole_and_ends_with_two(tmp_path: Path) -> None:
    path = configured(tmp_path, {"a": "ftp://x"}, keys=[{**CAPPED_KEY, "hard_cap": -1}])
    done = await run_cortexd(["serve", "--config", path, *ANY_PORTS])
    checked = await run_cortexd(["check-config", path])
    assert (done.returncode, checked.returncode) == (2, 2)
    for part in ("neurons[0].endpoint", "entitlements.keys[0].hard_cap", "2 problems"):
        assert part in done.stderr
        assert part in checked.stdout
    assert "sk-cap" not in done.stderr


async def test_a_second_daemon_on_one_ledger_is_refused_and_the_first_goes_on(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path, {}) as first:
        done = await run_cortexd(["serve", "--config", tmp_path / "cortexd.yaml", *ANY_PORTS])
        assert done.returncode == 1
        assert str(tmp_path / "ledger") in done.stderr
        assert (await first.budget())["spent"] == 0


async def test_a_taken_address_ends_with_a_message_that_names_it(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        path = configured(tmp_path, {})
        done = await run_cortexd(
            ["serve", "--config", path, "--listen", address, "--metrics-listen", "127.0.0.1:0"]
        )
    assert done.returncode == 1
    assert address in done.stderr
    assert "--listen" in done.stderr


async def test_a_damaged_ledger_is_refused_with_file_and_offset(tmp_path: Path) -> None:
    async with fake_neuron() as neuron, serving(tmp_path, {"a": neuron.url}) as daemon:
        async with daemon.client() as client:
            for _ in range(3):
                await client.post("/v1/chat/completions", json=chat())
        assert await daemon.stop() == 0
    [segment] = (tmp_path / "ledger").glob("seg-*.jsonl")
    lines = segment.read_bytes().splitlines(keepends=True)
    lines[3] = lines[3].replace(b'"k"', b'"K"', 1)
    segment.write_bytes(b"".join(lines))
    done = await run_cortexd(["serve", "--config", tmp_path / "cortexd.yaml", *ANY_PORTS])
    assert done.returncode == 2, "the next start would say the same"
    assert segment.name in done.stderr
    assert str(sum(map(len, lines[:3]))) in done.stderr


async def test_a_ledger_directory_that_cannot_be_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "ledger").write_text("a file")
    done = await run_cortexd(["serve", "--config", configured(tmp_path, {}), *ANY_PORTS])
    assert done.returncode == 2
    assert "ledger.directory" in done.stderr


async def test_a_ledger_whose_disk_is_not_there_is_worth_another_try(tmp_path: Path) -> None:
    """systemd tries again after 1, and never after 2; check-config has no such difference."""
    (tmp_path / "ledger").symlink_to(tmp_path / "not mounted")
    path = configured(tmp_path, {})
    done = await run_cortexd(["serve", "--config", path, *ANY_PORTS])
    checked = await run_cortexd(["check-config", path])
    assert (done.returncode, checked.returncode) == (1, 2)
    assert "ledger.directory" in done.stderr


async def test_streams_are_the_same_with_one_task_for_all_of_them_and_with_one_each(
    tmp_path: Path,
) -> None:
    said: dict[bool, tuple[str, float]] = {}
    for pump in (True, False):
        directory = tmp_path / str(pump)
        directory.mkdir()
        async with (
            fake_neuron() as neuron,
            serving(
                directory,
                {"a": neuron.url},
                keys=[BIG_KEY],
                gateway={"stream_pump": pump},
            ) as daemon,
            daemon.client() as client,
            httpx.AsyncClient(base_url=daemon.metrics, trust_env=False) as operator,
        ):
            answer = await client.post("/v1/chat/completions", json=chat(stream=True))
            text = re.sub(r'"(id|created)":("[^"]*"|[0-9]+)', "", answer.text)
            [tasks] = re.findall(
                r"^cortex_tasks (\S+)$", (await operator.get("/metrics")).text, re.M
            )
            said[pump] = (text, float(tasks))
    assert said[True][0] == said[False][0]
    assert said[True][0].endswith("data: [DONE]\n\n")
    assert said[True][1] == said[False][1] + 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_lets_a_running_stream_end_and_then_exits_with_zero(
    tmp_path: Path, number: signal.Signals
) -> None:
    async with (
        fake_neuron(gated=True, reply_tokens=5) as neuron,
        serving(tmp_path, {"a": neuron.url}, keys=[BIG_KEY]) as daemon,
    ):
        async with raw_client(daemon.gateway) as client, trio.open_nursery() as nursery:
            await client.post(chat(stream=True))
            await neuron.allow(2)
            await client.read_until(b'"content":"', 3)
            codes: list[int] = []

            async def stop() -> None:
                codes.append(await daemon.stop(number))

            nursery.start_soon(stop)
            with trio.fail_after(20):
                while await accepts(daemon.gateway):
                    pass
            await neuron.allow(3)
            await client.read_until(b"[DONE]")
        assert codes == [0]
        assert "ghosts=0" in daemon.log.read_text()
    async with serving(tmp_path, {}) as again:
        budget = await again.budget()
        assert budget["reserved"] == 0
        assert int(str(budget["spent"])) > 0
        assert again.log.read_text().count("ghosts=0") == 2


async def accepts(url: str) -> bool:
    """Whether somebody still accepts connections there."""
    host, _, port = url.removeprefix("http://").rpartition(":")
    try:
        stream = await trio.open_tcp_stream(host, int(port))
    except OSError:
        return False
    await stream.aclose()
    return True


async def test_a_second_signal_does_not_wait_for_the_grace(tmp_path: Path) -> None:
    async with (
        fake_neuron(silent=True) as neuron,
        serving(
            tmp_path, {"a": neuron.url}, keys=[BIG_KEY], gateway={"grace_seconds": 3600}
        ) as daemon,
        raw_client(daemon.gateway) as client,
    ):
        await client.post(chat(stream=True))
        await neuron.wait_for_hits(1)
        daemon.process.send_signal(signal.SIGTERM)
        with trio.fail_after(20):
            while await accepts(daemon.gateway):
                pass
        assert await daemon.stop() == 0
    async with serving(tmp_path, {}) as again:
        assert (await again.budget())["reserved"] == 0, "what was cut off was settled"


async def test_systemd_is_told_and_its_sockets_are_taken(tmp_path: Path) -> None:
    notify = tmp_path / "notify"
    gateway, metrics = (socket.create_server(("127.0.0.1", 0)) for _ in range(2))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager, gateway, metrics:
        manager.bind(str(notify))
        manager.settimeout(10)
        # The metrics socket comes first, so that only its name says which is which.
        script = (
            "import os, sys\n"
            f"os.dup2({metrics.fileno()}, 103), os.dup2({gateway.fileno()}, 104)\n"
            "os.dup2(103, 3), os.dup2(104, 4)\n"
            "os.environ['LISTEN_PID'] = os.environ['WATCHDOG_PID'] = str(os.getpid())\n"
            "os.execv(sys.argv[1], sys.argv[1:])"
        )
        for one in (gateway, metrics):
            os.set_inheritable(one.fileno(), True)
        async with serving(
            tmp_path,
            {},
            command=(sys.executable, "-c", script, *COMMAND),
            flags=(),
            environment={
                "NOTIFY_SOCKET": str(notify),
                "WATCHDOG_USEC": "200000",
                "LISTEN_FDS": "2",
                "LISTEN_FDNAMES": "cortexd-metrics:cortexd-gateway",
            },
            close_fds=False,
        ) as daemon:
            assert daemon.gateway.endswith(f":{gateway.getsockname()[1]}")
            assert daemon.metrics.endswith(f":{metrics.getsockname()[1]}")
            said = [manager.recv(4096) for _ in range(3)]
            assert said[0].startswith(b"READY=1\n")
            assert b"WATCHDOG=1" in said
            assert await daemon.stop() == 0
            while not said[-1].startswith(b"STOPPING=1"):
                said.append(manager.recv(4096))


async def test_it_listens_on_unix_sockets_and_leaves_none_behind(tmp_path: Path) -> None:
    path, metrics = tmp_path / "gateway.sock", tmp_path / "metrics.sock"
    flags = ("--listen", f"unix:{path}", "--metrics-listen", f"unix:{metrics}")
    async with serving(tmp_path, {}, flags=flags) as daemon:
        assert daemon.gateway == f"unix:{path}"
        async with await trio.open_unix_socket(path) as stream:
            await stream.send_all(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
            with trio.fail_after(10):
                assert (await stream.receive_some()).startswith(b"HTTP/1.1 200")
        shown = await run_cortexd(["status", "--url", daemon.metrics])
        assert (shown.returncode, shown.stdout.split()[0]) == (0, "NEURON"), shown.stderr
        misled = await run_cortexd(["status", "--url", daemon.gateway])
        assert (misled.returncode, "not the metrics listener" in misled.stderr) == (1, True)
        assert await daemon.stop() == 0
    assert not path.exists()
    assert not metrics.exists()


async def test_tls_serves_http_1_and_h2(tmp_path: Path) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    issued.private_key_pem.write_to_path(tmp_path / "key.pem")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    tls = {"certificate": "cert.pem", "private_key": "key.pem"}
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    async with (
        fake_neuron(reply_tokens=3) as neuron,
        serving(tmp_path, {"a": neuron.url}, gateway={"tls": tls}) as daemon,
    ):
        assert daemon.gateway.startswith("https://")
        async with daemon.client(verify=trusting) as client:
            assert (await client.post("/v1/chat/completions", json=chat())).status_code == 200
        status, body = await h2_post(daemon.gateway, trusting, msgspec.json.encode(chat()))
        assert status == b"200"
        assert msgspec.json.decode(body)["usage"]["completion_tokens"] == 3


async def h2_post(url: str, tls: ssl.SSLContext, body: bytes) -> tuple[bytes, bytes]:
    """One chat request over HTTP/2, chosen by ALPN: its status and body."""
    host, _, port = url.removeprefix("https://").rpartition(":")
    tls.set_alpn_protocols(["h2"])
    stream = await trio.open_ssl_over_tcp_stream(
        host, int(port), ssl_context=tls, https_compatible=True
    )
    async with stream:
        await stream.do_handshake()
        assert stream.selected_alpn_protocol() == "h2"
        connection = H2Connection(H2Configuration(client_side=True, header_encoding=None))
        connection.initiate_connection()
        head = {
            ":method": "POST",
            ":path": "/v1/chat/completions",
            ":scheme": "https",
            ":authority": host,
            "authorization": "Bearer sk-cap",
        }
        connection.send_headers(1, list(head.items()))
        connection.send_data(1, body, end_stream=True)
        await stream.send_all(connection.data_to_send())
        status, received = b"", b""
        with trio.fail_after(20):
            while True:
                for event in connection.receive_data(bytes(await stream.receive_some())):
                    if isinstance(event, ResponseReceived):
                        status = dict(event.headers or [])[b":status"]
                    elif isinstance(event, DataReceived):
                        received += event.data or b""
                    elif isinstance(event, StreamEnded):
                        return status, received
                await stream.send_all(connection.data_to_send())


METRICS = [
    "cortex_requests_total",
    "cortex_request_errors_total",
    "cortex_request_duration_seconds",
    "cortex_time_to_first_token_seconds",
    "cortex_tokens_per_second",
    "cortex_prompt_tokens_total",
    "cortex_completion_tokens_total",
    "cortex_cached_prompt_tokens_total",
    "cortex_spend_tokens_total",
    "cortex_spend_prompt_tokens_total",
    "cortex_spend_completion_tokens_total",
    "cortex_budget_refusals_total",
    "cortex_budget_hard_cap_tokens",
    "cortex_budget_spent_tokens",
    "cortex_budget_reserved_tokens",
    "cortex_model_in_flight",
    "cortex_model_queue_depth",
    "cortex_model_max_in_flight",
    "cortex_model_max_queue_depth",
    "cortex_model_tok_s_prefill",
    "cortex_model_tok_s_decode",
    "cortex_model_rejections_total",
    "cortex_device_vram_used_mb",
    "cortex_device_vram_free_mb",
    "cortex_device_utilization_pct",
    "cortex_device_temp_c",
    "cortex_ledger_fsync_seconds",
    "cortex_ledger_batch_size",
    "cortex_ledger_entries_total",
    "cortex_ledger_open_reservations",
    "cortex_ledger_disk_bytes",
    "cortex_ledger_segments",
    "cortex_ledger_disk_free_bytes",
]


async def test_metrics_status_and_health_say_what_happened(tmp_path: Path) -> None:
    async with (
        fake_neuron(fixed_usage=(5, 10)) as neuron,
        serving(tmp_path, {"beast": neuron.url}) as daemon,
        daemon.client() as client,
        httpx.AsyncClient(base_url=daemon.metrics, trust_env=False) as operator,
    ):
        for stream in (False, True):
            await client.post("/v1/chat/completions", json=chat(stream=stream))
        await client.post("/v1/chat/completions", json=chat(max_tokens=5000))
        wrong_key = {"authorization": "Bearer sk-wrong"}
        await client.post("/v1/chat/completions", json=chat(), headers=wrong_key)
        await client.post("/v1/chat/completions", json=chat(model="nobody/knows"))
        await client.post("/v1/chat/completions", content="{")
        await client.get("/v1/models", headers=wrong_key)  # not for a model
        text = (await operator.get("/metrics")).text
        names = set(re.findall(r"^# TYPE (\S+)", text, re.MULTILINE))
        assert set(METRICS) <= names
        for line in (
            'cortex_requests_total{model="sim/small",node="beast"} 2.0',
            'cortex_requests_total{model="",node=""} 3.0',
            'cortex_request_errors_total{model="",node=""} 3.0',
            'cortex_spend_tokens_total{account="acct-cap",key="key-cap"} 30.0',
            'cortex_budget_spent_tokens{name="key-cap",scope="key"} 30.0',
            'cortex_neuron_up{node="beast"} 1.0',
        ):
            assert line in text
        assert re.search(
            r'cortex_budget_refusals_total{.*reason="insufficient_quota".*} 1\.0', text
        )
        health = (await operator.get("/health")).json()
        nodes = {"healthy": 1, "total": 1}
        assert health == {"status": "ok", "nodes": nodes, "unservable": [], "ledger": "ok"}
        assert (await client.get("/health")).json() == health
        assert (await client.head("/")).status_code == 200
        refused = await operator.post("/metrics")
        assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD")
        status = await run_cortexd(["status", "--url", daemon.metrics])
        assert status.returncode == 0
        assert re.search(r"beast\s+healthy\s+sim/small\s+loaded", status.stdout)


async def test_no_key_and_no_prompt_is_written_anywhere(tmp_path: Path) -> None:
    secret, prompt = "sk-SENTINEL-key", "SENTINEL-prompt"
    keys = [{**BIG_KEY, "key": secret}]
    async with (
        fake_neuron() as neuron,
        serving(tmp_path, {"a": neuron.url}, keys=keys) as daemon,
        httpx.AsyncClient(base_url=daemon.metrics, trust_env=False) as operator,
    ):
        async with daemon.client(secret) as client:
            for fields in ({}, {"stream": True}, {"max_tokens": 10**6}, {"n": "SENTINEL-prompt"}):
                body = {**chat(prompt), **fields}
                await client.post("/v1/chat/completions", json=body)
            neuron.switches.broken = Broken(BreakKind.ERROR_FRAME, after_tokens=2)
            await client.post("/v1/chat/completions", json=chat(prompt, stream=True))
        async with daemon.client("sk-SENTINEL-wrong") as client:
            assert (await client.get("/v1/budget")).status_code == 401
        written = [(await operator.get(path)).content for path in ("/metrics", "/status")]
        assert await daemon.stop() == 0
    written += [path.read_bytes() for path in (tmp_path / "ledger").iterdir()]
    written.append(daemon.log.read_bytes())
    assert len(daemon.requests()) == 6
    assert not [text for text in written if b"SENTINEL" in text]


async def test_three_misses_make_a_neuron_unhealthy_and_one_success_heals_it(
    tmp_path: Path,
) -> None:
    async with (
        fake_neuron() as neuron,
        serving(tmp_path, {"a": neuron.url}, keys=[BIG_KEY], polling=POLLING) as daemon,
        daemon.client() as client,
    ):
        assert (await client.post("/v1/chat/completions", json=chat())).status_code == 200
        neuron.switches.faults["/models"] = Broken(BreakKind.GARBAGE)
        await health_is(client, "degraded")
        refused = await client.post("/v1/chat/completions", json=chat())
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "no_neuron")
        assert int(refused.headers["retry-after"]) >= 1
        assert (await client.get("/v1/models")).json()["data"][0]["loaded"] is False
        neuron.switches.faults.clear()
        await health_is(client, "ok")
        assert (await client.post("/v1/chat/completions", json=chat())).status_code == 200


async def health_is(client: httpx.AsyncClient, status: str) -> None:
    """Ask until the fleet's health is so."""
    with trio.fail_after(20):
        while (await client.get("/health")).json()["status"] != status:
            pass


async def test_an_openai_server_is_a_neuron_too(tmp_path: Path) -> None:
    async with (
        fake_neuron(reply_tokens=3) as neuron,
        serving(tmp_path, {"a": {"endpoint": neuron.url, "kind": "openai"}}) as daemon,
        daemon.client() as client,
    ):
        answer = await client.post("/v1/chat/completions", json=chat())
        assert answer.json()["usage"]["completion_tokens"] == 3
        assert {request.path for request in neuron.seen} <= {"/v1/models", "/v1/chat/completions"}


async def test_demo_runs_without_a_file_and_leaves_nothing_behind(tmp_path: Path) -> None:
    """What a newcomer types first."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    command = [*COMMAND, "demo", *ANY_PORTS]
    environment = {"TMPDIR": str(temporary)}
    async with started(command, tmp_path / "log", environment=environment) as daemon:
        async with daemon.client("sk-demo-balance") as client:
            question = chat("hello", model="small")
            assert (await client.post("/v1/chat/completions", json=question)).status_code == 200
        assert int(str((await daemon.budget("sk-demo-balance"))["spent"])) > 0
        assert await daemon.stop(signal.SIGINT) == 0
    assert list(temporary.iterdir()) == []
