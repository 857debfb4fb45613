"""Who else passes requests on to the neuron: a naive gateway, nginx, and products when asked for.

Owns how each is configured: to pass on as well as it can, on one core, one process, no logs. The
products are installed in environments of their own under build/peers, by `PEERS=1 make bench`, and
are nothing that cortexd needs.
"""

import contextlib
import json
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.bench.child import ROOT, SERVER_CORES, BenchFailed, Child, free_port, module
from tests.bench.traffic import KEY, MODEL

NAIVE = "Hypercorn + httpx"
NGINX = "nginx"
PEERS = ROOT / "build" / "peers"
_NGINX_PATHS = ("nginx", "/usr/sbin/nginx")

_QUIET = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_TELEMETRY": "False",
    "LITELLM_LOG": "ERROR",
    "DISABLE_ADMIN_UI": "True",
    "NO_PROXY": "*",
}


@contextlib.contextmanager
def running(
    directory: Path, neuron_port: int, *, with_peers: bool
) -> Iterator[Mapping[str, Child]]:
    """All of them, by name and version; they have ended when it is left. Raises BenchFailed."""
    with contextlib.ExitStack() as stack:
        found: dict[str, Child] = {}

        def start(
            name: str,
            command: list[str],
            port: int = 0,
            environment: Mapping[str, str] | None = None,
        ) -> None:
            log = directory / f"{name}.log"
            child = Child(command, SERVER_CORES, log, port=port, environment=environment)
            stack.callback(child.end)
            found[name] = child

        url = f"http://127.0.0.1:{neuron_port}"
        start(NAIVE, module("tests.bench.naive_gateway", url))
        if nginx := nginx_path():
            port = free_port()
            start(f"{NGINX} {_nginx_version(nginx)}", _nginx(nginx, directory, port, url), port)
        if with_peers:
            port = free_port()
            command = _litellm(directory, port, url)
            start(f"LiteLLM {_version('litellm')}", command, port, _QUIET)
            port = free_port()
            start(f"sglang-router {_version('sglang-router')}", _sglang(port, url), port)
        yield found


def nginx_path() -> str | None:
    """Where nginx is, if it is installed."""
    return next((path for name in _NGINX_PATHS if (path := shutil.which(name))), None)


def absent(*, with_peers: bool) -> list[str]:
    """What is not compared with this time, and what would change that."""
    lines = []
    if nginx_path() is None:
        lines.append("nginx is not installed here (apt install nginx-light), so it is left out.")
    if not with_peers:
        lines.append("PEERS=1 make bench compares with LiteLLM and sglang-router too.")
    return lines


def _nginx_version(nginx: str) -> str:
    told = subprocess.run([nginx, "-v"], capture_output=True, text=True, check=True)
    return told.stderr.strip().rpartition("/")[2]


def _nginx(nginx: str, directory: Path, port: int, url: str) -> list[str]:
    place = directory / "nginx"
    place.mkdir()
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = "".join(f"{kind}_temp_path {place}/{kind};\n" for kind in kinds)
    (place / "nginx.conf").write_text(
        f"""daemon off; master_process off; pid {place}/pid; error_log {place}/error crit;
events {{ worker_connections 8192; }}
http {{
access_log off; keepalive_requests 1000000000; client_body_buffer_size 2m;
{temporary}
upstream neuron {{ server {url.removeprefix("http://")}; keepalive 1024;
                   keepalive_requests 1000000000; }}
server {{ listen 127.0.0.1:{port} backlog=4096; client_max_body_size 8m;
location / {{ proxy_pass http://neuron; proxy_http_version 1.1; proxy_buffering off;
              proxy_set_header Connection ""; }} }}
}}
"""
    )
    return [nginx, "-c", str(place / "nginx.conf"), "-e", str(place / "error")]


def _litellm(directory: Path, port: int, url: str) -> list[str]:
    model = {
        "model_name": MODEL,
        "litellm_params": {"model": f"openai/{MODEL}", "api_base": f"{url}/v1", "api_key": "none"},
    }
    config = {
        "model_list": [model],
        "litellm_settings": {"telemetry": False, "num_retries": 0},
        "general_settings": {"master_key": KEY},
    }
    path = directory / "litellm.yaml"
    path.write_text(json.dumps(config))
    where = ["--host", "127.0.0.1", "--port", str(port)]
    return [_installed("litellm", "litellm"), "--config", str(path), "--num_workers", "1", *where]


def _sglang(port: int, url: str) -> list[str]:
    python = _installed("sglang-router", "python")
    where = ["--host", "127.0.0.1", "--port", str(port), "--prometheus-port", str(free_port())]
    policy = ["--policy", "round_robin", "--log-level", "error"]
    return [python, "-m", "sglang_router.launch_router", "--worker-urls", url, *where, *policy]


def _installed(peer: str, program: str) -> str:
    path = PEERS / peer / "bin" / program
    if not path.exists():
        raise BenchFailed(f"{peer} is not installed: run PEERS=1 make bench")
    return str(path)


def _version(peer: str) -> str:
    ask = f"from importlib.metadata import version; print(version({peer!r}))"
    python = _installed(peer, "python")
    return subprocess.run(
        [python, "-c", ask], capture_output=True, text=True, check=True
    ).stdout.strip()
