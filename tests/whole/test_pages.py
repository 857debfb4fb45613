"""Pages in a browser and the daemon, over real connections."""

from pathlib import Path

import pytest

from tests.support.daemon_process import chat, serving
from tests.support.fake_neuron import fake_neuron

pytestmark = pytest.mark.slow

PAGE = "https://chat.example.org"
PREFLIGHT = {
    "origin": PAGE,
    "access-control-request-method": "POST",
    "access-control-request-headers": "authorization",
}


@pytest.mark.parametrize(
    ("gateway", "allowed"),
    [({}, "*"), ({"cors_origins": [PAGE]}, PAGE), ({"cors_origins": []}, None)],
)
async def test_pages_may_call_as_far_as_the_operator_lets_them(
    tmp_path: Path, gateway: dict[str, object], allowed: str | None
) -> None:
    async with (
        fake_neuron() as neuron,
        serving(tmp_path, {"a": neuron.url}, gateway=gateway) as daemon,
        daemon.client() as client,
    ):
        path = "/v1/chat/completions"
        asked = await client.request("OPTIONS", path, headers=PREFLIGHT)
        answer = await client.post(path, json=chat(), headers={"origin": PAGE})
        assert (asked.status_code, answer.status_code) == (204, 200)
        for each in (asked, answer):
            assert each.headers.get("access-control-allow-origin") == allowed
