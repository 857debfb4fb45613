"""What only mutants noticed of a request's way through the core."""

import json
from pathlib import Path

from cortexd.config.schema import Catalogue, CatalogueModel, Limit
from cortexd.dialects.upper_bound import OUTPUT_TOKENS_DEFAULT
from cortexd.gateway.budget import over_cap
from cortexd.ledger.cap_windows import rolling
from cortexd.ledger.entries import Refused, Standing, key_scope
from tests.support.core import core
from tests.support.daemon_process import chat
from tests.support.fake_neuron import fake_neuron


async def test_the_neuron_is_told_what_was_reserved_and_not_what_was_asked(tmp_path: Path) -> None:
    """Else it could generate more than the cap has room for."""
    small = Catalogue(models=(CatalogueModel("sim/small", limit=Limit(output=9)),))
    unlimited = {name: value for name, value in chat().items() if name != "max_tokens"}
    async with (
        fake_neuron() as neuron,
        core(tmp_path / "with", {"a": neuron.url}, catalogue=small) as it,
    ):
        for body in (chat(max_tokens=500), unlimited):
            await it.ask(body)
            assert json.loads(neuron.seen[-1].body)["max_tokens"] == 9
    async with fake_neuron() as neuron, core(tmp_path / "without", {"a": neuron.url}) as it:
        await it.ask(unlimited)
        assert json.loads(neuron.seen[-1].body)["max_tokens"] == OUTPUT_TOKENS_DEFAULT


def test_a_request_as_large_as_the_whole_cap_fits_when_the_window_is_empty() -> None:
    cap = Standing(key_scope("ci"), 100, rolling(60_000), 80, 0, 9_000, "tok", False)
    whole = over_cap(Refused(cap, asked=100, fits_in_ms=9_000, exact=True), wall_ms=0)
    assert (whole.retry_after_seconds, whole.is_final) == (9, False)
    larger = over_cap(Refused(cap, asked=101, fits_in_ms=None, exact=False), wall_ms=0)
    assert (larger.retry_after_seconds, larger.is_final) == (60, True)
