"""What a daemon has loaded: memory and start-up time are spent on what is used, not on what may be.

An import at the top of the wrong file costs megabytes that nobody misses, so it is asked of the
real process, which writes down its modules when it ends.
"""

import contextlib
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import trio

from tests.daemon.test_http1_guarded import over_h2
from tests.support.daemon_process import DaemonProcess, chat, serving
from tests.support.faces import Certificate
from tests.support.fake_neuron import fake_neuron

pytestmark = pytest.mark.slow

#: Loaded by a mistake in an import, or by a request that only some clients make.
UNUSED = {
    *("hypercorn", "h2", "hpack", "hyperframe", "h11", "wsproto", "priority", "multiprocessing"),
    *("rich", "pygments", "markdown_it", "click", "anyio", "httpcore", "certifi", "asyncio"),
    *(
        "zoneinfo",
        "difflib",
        "sysconfig",
        "tomllib",
        "pickle",
        "logging.config",
        "logging.handlers",
    ),
    *("unittest", "pydoc", "doctest", "pdb", "sqlite3", "xml", "cryptography"),
    *("cortexd.demo", "cortexd.manual", "cortexd.cli.clients", "cortexd.ledger.verifying"),
}
_CLI = {f"cortexd.cli{name}" for name in ("", ".main", ".notices", ".serve", ".standard_output")}
_CODE = """\
import atexit, pathlib, sys
wrote_to = pathlib.Path(sys.argv.pop(1))
atexit.register(lambda: wrote_to.write_text(chr(10).join(sys.modules)))
from cortexd.cli.main import main
sys.exit(main())
"""


class Watched:
    """A daemon, and what it had loaded in the end."""

    def __init__(self, daemon: DaemonProcess, modules: Path) -> None:
        self.daemon = daemon
        self._modules = modules

    async def loaded(self) -> set[str]:
        """End the daemon; the names of its modules."""
        assert await self.daemon.stop() == 0, self.daemon.log.read_text()
        return set(self._modules.read_text().splitlines())


@contextlib.asynccontextmanager
async def watched(tmp_path: Path, **gateway: object) -> AsyncIterator[Watched]:
    """A daemon before one neuron, as `cortexd serve` runs it."""
    modules = tmp_path / "modules"
    async with (
        fake_neuron(reply_tokens=3) as neuron,
        serving(
            tmp_path,
            {"a": neuron.url},
            command=(sys.executable, "-c", _CODE, str(modules)),
            gateway=gateway,
        ) as daemon,
    ):
        yield Watched(daemon, modules)


def unused_of(loaded: set[str]) -> set[str]:
    """Those that are there for nothing, with the modules in them."""
    return {
        name for name in loaded if any(name == of or name.startswith(of + ".") for of in UNUSED)
    }


async def test_a_daemon_that_serves_has_loaded_nothing_for_others(tmp_path: Path) -> None:
    admin = str(tmp_path / "admin.sock")
    async with watched(tmp_path, admin_socket=admin) as it:
        async with it.daemon.client() as client:
            for stream in (False, True):
                answer = await client.post("/v1/chat/completions", json=chat(stream=stream))
                assert answer.status_code == 200
            assert (await client.get(f"{it.daemon.metrics}/metrics")).status_code == 200
        transport = httpx.AsyncHTTPTransport(uds=admin)
        async with httpx.AsyncClient(transport=transport) as operator:
            assert (await operator.get("http://admin/models")).status_code == 200
        loaded = await it.loaded()
    assert not unused_of(loaded)
    assert {name for name in loaded if name.startswith("cortexd.cli")} == _CLI


async def test_everything_that_answers_is_loaded_before_it_is_asked(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Nobody's first request waits for an import."""
    async with watched(tmp_path_factory.mktemp("idle")) as it:
        idle = await it.loaded()
    async with watched(tmp_path_factory.mktemp("asked")) as it:
        async with it.daemon.client() as client:
            for stream in (False, True):
                await client.post("/v1/chat/completions", json=chat(stream=stream))
            await client.get(f"{it.daemon.metrics}/metrics")
        asked = await it.loaded()
    assert asked - idle == set()


async def test_http_2_is_loaded_for_the_first_who_speaks_it(tmp_path: Path) -> None:
    async with watched(tmp_path) as it:
        host, _, port = it.daemon.gateway.removeprefix("http://").rpartition(":")
        async with await trio.open_tcp_stream(host, int(port)) as stream:
            _, status = await over_h2(stream)
        assert status == b"404"
        loaded = await it.loaded()
    assert {"hypercorn", "h2"} <= loaded


async def test_http_2_is_loaded_at_the_start_where_tls_lets_clients_choose_it(
    tmp_path: Path,
) -> None:
    """With TLS it is what most clients choose, and it is loaded where nobody waits for it."""
    issued = Certificate.shared().issued
    issued.private_key_pem.write_to_path(tmp_path / "key.pem")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    tls = {"certificate": "cert.pem", "private_key": "key.pem"}
    async with watched(tmp_path, tls=tls) as it:
        loaded = await it.loaded()
    assert {"hypercorn", "h2"} <= loaded
