"""The daemon in front of neurons that have nothing loaded, die while they load, or sleep."""

import json
import os
import signal
import socket
import sys
from pathlib import Path

import pytest
import trio

from cortexd.demo.hardware import SimulatedModel
from cortexd.fleet.wake import magic_packet
from tests.support.daemon_process import PATIENCE_SECONDS, ROOT, chat, serving
from tests.support.fake_neuron import running, turned
from tests.support.mortal_neuron import mortal_neuron
from tests.support.raw_client import raw_client
from tests.support.watched_neuron import WatchedNeuron
from tests.whole.cold_fleet import (
    QUICK_POLLS,
    RICH,
    admin,
    asked,
    asked_at_once,
    catalogue,
    logged,
    metrics,
    saved,
    served_in_the_end,
    waiting_for,
)

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).with_name("sdk_waits.py")
OAK, FERN = "sim/oak", "sim/fern"
COLD = ("--cold", OAK, "--cold", FERN)


def cold_neuron(*models: str, name: str = "beast", **switches: object) -> WatchedNeuron:
    """A neuron in this process that knows these models and has none of them loaded."""
    known = [SimulatedModel(model, resident=False) for model in models or (OAK,)]
    return WatchedNeuron(name, known, switches=turned(**switches))


async def test_five_hundred_first_requests_on_connections_of_their_own_are_one_load(
    tmp_path: Path,
) -> None:
    neuron = cold_neuron(gated_loads=True, reply_tokens=3)
    socket_path = tmp_path / "admin.sock"
    async with (
        running(neuron),
        serving(
            tmp_path,
            {"beast": neuron.url},
            keys=[RICH],
            polling=QUICK_POLLS,
            models_config=catalogue(tmp_path, OAK),
            gateway={"admin_socket": str(socket_path)},
        ) as daemon,
        admin(socket_path) as operator,
        trio.open_nursery() as nursery,
    ):

        async def let_it_load() -> None:
            with trio.fail_after(PATIENCE_SECONDS):
                while await waiting_for(operator, OAK) < 500:
                    pass
            await neuron.allow_load()

        nursery.start_soon(let_it_load)
        answers = await asked_at_once(daemon, OAK, count=500)
        assert [each.received for each in answers if not each.is_served] == []
        assert (neuron.loads, neuron.chat_hits) == (1, 500)
        assert (await daemon.settled_budget())["spent"] == neuron.counters.served.total
        found = await metrics(daemon)
        assert found[f'cortex_cold_starts_total{{model="{OAK}",node="beast"}}'] == 1
        assert found[f'cortex_load_seconds_count{{model="{OAK}",node="beast"}}'] == 1
        assert found['cortex_wait_seconds_count{clock="load"}'] == 500


async def test_the_official_client_waits_for_a_load_that_is_longer_than_its_own_timeout(
    tmp_path: Path,
) -> None:
    """Its timeout is for silence, and heartbeats break that."""
    package = ROOT / ".sdk" / "openai3"
    if not (package / ".ready").exists():
        pytest.skip("THE OPENAI PACKAGE WAS NOT TESTED; fetch it with: make .sdk/openai3/.ready")
    neuron = cold_neuron(load_seconds=2, reply_tokens=7)
    async with (
        running(neuron),
        serving(
            tmp_path,
            {"beast": neuron.url},
            keys=[RICH],
            polling=QUICK_POLLS,
            waiting={"heartbeat_seconds": 0.2},
            models_config=catalogue(tmp_path, OAK),
        ) as daemon,
    ):
        with trio.fail_after(2 * PATIENCE_SECONDS):
            done = await trio.run_process(
                [sys.executable, str(SCRIPT), daemon.gateway, OAK],
                env={**os.environ, "PYTHONPATH": str(package)},
                capture_stdout=True,
            )
    met = json.loads(done.stdout)
    assert neuron.loads == 1
    assert (met["texts"], len(met["finish_reasons"])) == (7, 1)
    assert met["seconds_from_head_to_text"] > met["timeout_seconds"]
    assert met["heartbeats"] >= 3


async def test_who_waits_for_a_neuron_that_is_killed_is_told_once_and_the_next_try_goes_elsewhere(
    tmp_path: Path,
) -> None:
    loads = (*COLD, "--switch", "load_seconds=0.6")
    async with (
        mortal_neuron(tmp_path, "one", *loads) as one,
        mortal_neuron(tmp_path, "other", *loads) as other,
        serving(
            tmp_path,
            {"one": one.url, "other": {"endpoint": other.url}},
            keys=[RICH],
            polling=QUICK_POLLS,
            models_config=catalogue(tmp_path, OAK, FERN),
        ) as daemon,
        trio.open_nursery() as nursery,
    ):

        async def kill() -> None:
            await one.wait_for_load(OAK)
            await one.die()

        nursery.start_soon(kill)
        answers = await asked_at_once(daemon, OAK, count=9)
        told = [answer.error_codes for answer in answers if not answer.is_served]
        # Who came after the kill may have been served elsewhere already.
        assert told == [["model_load_failed"]] * max(1, len(told))
        served = [tokens.total for tokens in other.served().values()]
        assert (await daemon.settled_budget())["spent"] == sum(served)
        assert (await asked(daemon, OAK)).is_served
        assert other.served()
        assert not one.served()

        await one.live()
        await other.die()
        codes = await served_in_the_end(daemon, FERN)
        assert set(codes) <= {"model_load_failed", "no_neuron"}  # until the other is found out
        assert one.served()


async def test_a_replica_that_is_killed_in_mid_stream_ends_its_own_streams_and_no_others(
    tmp_path: Path,
) -> None:
    options = ("--model", OAK, "--switch", "token_seconds=0.01", "--switch", "reply_tokens=60")
    async with (
        mortal_neuron(tmp_path, "one", *options) as one,
        mortal_neuron(tmp_path, "other", *options) as other,
        serving(
            tmp_path, {"one": one.url, "other": other.url}, keys=[RICH], polling=QUICK_POLLS
        ) as daemon,
    ):
        ends: list[bytes] = []

        async def read_one(*, task_status: trio.TaskStatus[None]) -> None:
            async with raw_client(daemon.gateway) as client:
                await client.post(chat(model=OAK, stream=True, max_tokens=60), last=True)
                await client.read_until(b'"content":"', 5)
                task_status.started()
                await client.read_to_the_end()
            ends.append(client.received)

        async with trio.open_nursery() as nursery:
            for _ in range(8):
                await nursery.start(read_one)
            assert one.served()
            assert other.served()
            await one.die()
        whole = [end for end in ends if b"data: [DONE]" in end]
        broken = [end for end in ends if b'"code":"upstream_failed"' in end]
        assert len(whole) + len(broken) == 8
        assert 1 <= len(broken) <= 7
        assert (await asked(daemon, OAK)).is_served
        spent = int(str((await daemon.settled_budget())["spent"]))
        served = [tokens for each in (one, other) for tokens in each.served().values()]
        assert spent >= sum(tokens.total for tokens in served)


async def test_a_neuron_that_freezes_in_mid_load_is_noticed_by_polls_and_serves_when_it_thaws(
    tmp_path: Path,
) -> None:
    """A black hole answers nothing for half an hour; polls know after a second."""
    impatient = {"interval_seconds": 0.2, "timeout_seconds": 0.5}
    async with (
        mortal_neuron(tmp_path, "one", *COLD, "--switch", "load_seconds=0.5") as one,
        serving(
            tmp_path,
            {"one": one.url},
            keys=[RICH],
            polling=impatient,
            models_config=catalogue(tmp_path, OAK),
        ) as daemon,
        trio.open_nursery() as nursery,
    ):

        async def freeze() -> None:
            await one.wait_for_load(OAK)
            one.freeze()

        nursery.start_soon(freeze)
        for answer in await asked_at_once(daemon, OAK, count=6):
            assert answer.error_codes == ["model_load_failed"]
        assert "does not answer any more" in (await logged(daemon, "load_failed"))[0]
        one.thaw()
        codes = await served_in_the_end(daemon, OAK)
        assert set(codes) <= {"model_load_failed", "no_neuron"}
        found = await metrics(daemon)
        assert found[f'cortex_cold_starts_total{{model="{OAK}",node="one"}}'] == 1
        assert found[f'cortex_load_failures_total{{model="{OAK}",node="one"}}'] == 1


async def test_a_neuron_that_comes_back_empty_loads_what_is_asked_for_again(
    tmp_path: Path,
) -> None:
    neuron = cold_neuron()
    async with (
        running(neuron),
        serving(
            tmp_path,
            {"beast": neuron.url},
            keys=[RICH],
            polling=QUICK_POLLS,
            models_config=catalogue(tmp_path, OAK),
        ) as daemon,
    ):
        assert (await asked(daemon, OAK)).is_served
        for loads in (2, 3, 4):
            neuron.restart(empty=True)
            answers = await asked_at_once(daemon, OAK, count=12)
            assert [each.received for each in answers if not each.is_served] == []
            assert neuron.loads == loads
        assert neuron.robbed == []


async def test_a_catalogue_that_is_saved_counts_at_a_signal_and_a_broken_one_is_told(
    tmp_path: Path,
) -> None:
    neuron = cold_neuron(OAK, FERN)
    async with (
        running(neuron),
        serving(
            tmp_path,
            {"beast": neuron.url},
            keys=[RICH],
            polling=QUICK_POLLS,
            models_config=catalogue(tmp_path, OAK),
        ) as daemon,
        daemon.client() as client,
    ):
        assert (await asked(daemon, "tree")).error_codes == ["model_not_found"]
        assert (await asked(daemon, FERN)).error_codes == ["model_not_found"]
        catalogue(tmp_path, OAK, FERN, aliases={"tree": OAK})
        daemon.process.send_signal(signal.SIGHUP)
        await logged(daemon, "catalogue_reloaded")
        for name in ("tree", FERN):
            assert (await asked(daemon, name)).is_served
        listed = (await client.get("/v1/models")).json()["data"]
        assert [each["id"] for each in listed] == [FERN, OAK, "tree"]

        file = saved(tmp_path, "models: [{id: sim/oak, vram_mb: -1}]\naliases: {a: sim/absent}\n")
        daemon.process.send_signal(signal.SIGHUP)
        [line] = await logged(daemon, "catalogue_broken")
        assert "vram_mb" in line
        assert file in line
        for name in ("tree", FERN):
            assert (await asked(daemon, name)).is_served
        assert await daemon.stop() == 0


async def test_a_machine_that_sleeps_is_woken_for_a_model_and_the_request_waits_for_it(
    tmp_path: Path,
) -> None:
    mac = "02:00:5e:10:00:aa"
    neuron = cold_neuron()
    neuron.bind()
    neuron.close()
    with trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ear:
        await ear.bind(("127.0.0.1", 0))
        broadcast = f"127.0.0.1:{ear.getsockname()[1]}"
        async with (
            serving(
                tmp_path,
                {"sleeper": {"endpoint": neuron.url, "mac": mac, "wake_broadcast": broadcast}},
                keys=[RICH],
                polling={**QUICK_POLLS, "misses_to_unhealthy": 1},
                models_config=catalogue(tmp_path, OAK),
            ) as daemon,
            raw_client(daemon.gateway) as client,
        ):
            await client.post(chat(model=OAK, stream=True), last=True)
            with trio.fail_after(PATIENCE_SECONDS):
                assert await ear.recv(1000) == magic_packet(mac)
            await client.read_until(b": still working")
            assert client.received.startswith(b"HTTP/1.1 200 ")
            async with running(neuron, port=neuron.port):
                await client.read_to_the_end()
            assert b"data: [DONE]" in client.received
            assert neuron.loads == 1
            await logged(daemon, "neuron_woken")
