"""No endpoint reaches a neuron past the meter, whoever asks and however.

The table of endpoints says which are metered; here every row is asked in every way. A new kind of
endpoint fails until it stands in one of the two lists below and, if it is metered, has a request.
"""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import trio

from cortexd.demo.neuron import SimulatedNeuron
from cortexd.gateway.endpoints import ENDPOINTS, Endpoint, EndpointKind
from tests.support.core import Core, RecordingClient, core, key
from tests.support.fake_neuron import running, turned
from tests.support.journal_audit import entries_in
from tests.support.surfaces import CATALOGUE, REQUESTS, Posted, all_round_neuron, code_of

UNMETERED = {
    EndpointKind.COUNT,
    EndpointKind.MODELS,
    EndpointKind.MODEL,
    EndpointKind.BUDGET,
    EndpointKind.HEALTH,
    EndpointKind.ROOT,
}
#: Ways to say who one is. `core` sends a Bearer key unless it is told another authorization.
WITH_KEY: Mapping[str, Mapping[str, str]] = {
    "bearer": {"authorization": "Bearer sk-cap"},
    "x-api-key": {"authorization": "", "x_api_key": "sk-cap"},
    "both": {"authorization": "Bearer sk-cap", "x_api_key": "sk-cap"},
}
WITHOUT_KEY: Mapping[str, Mapping[str, str]] = {
    "nobody": {"authorization": ""},
    "unknown key": {"authorization": "Bearer placeholder"},
    "unknown x-api-key": {"authorization": "", "x_api_key": "placeholder"},
}
METERED = [row for row in ENDPOINTS if row.path in REQUESTS]
ROWS = pytest.mark.parametrize("row", METERED, ids=lambda row: row.path)


def ways_to_ask(
    row: Endpoint, callers: Mapping[str, Mapping[str, str]]
) -> list[tuple[str, Posted, Mapping[str, str]]]:
    """Every method x body x caller of a metered endpoint."""
    return [
        (method, body, headers)
        for method, body, headers in itertools.product(
            row.methods, REQUESTS[row.path], callers.values()
        )
    ]


async def ask_as(
    headers: Mapping[str, str],
    it: Core,
    path: str,
    method: str,
    posted: Posted,
    client: RecordingClient | None = None,
) -> RecordingClient:
    """One request by the caller that these headers make."""
    named = {"content_type": posted.content_type, **headers}
    return await it.ask(posted.body, client=client, path=path, method=method, **named)


def test_every_kind_of_endpoint_is_known_here_and_in_the_table() -> None:
    assert set(EndpointKind) == {EndpointKind.WORK} | UNMETERED
    assert {row.kind for row in ENDPOINTS} == set(EndpointKind)
    assert REQUESTS.keys() == {row.path for row in METERED}
    for row in ENDPOINTS:
        assert row.metered == (row.path in REQUESTS), f"{row.path} says another thing of its meter"
        assert row.metered == (row.kind is EndpointKind.WORK)
        assert not (row.metered and row.public), f"{row.path} has nobody to charge"


@ROWS
async def test_a_cap_of_nothing_lets_nothing_through(row: Endpoint, tmp_path: Path) -> None:
    async with (
        running(all_round_neuron()) as neuron,
        core(tmp_path, {"a": neuron.url}, keys=[key(hard_cap=0)], catalogue=CATALOGUE) as it,
    ):
        for method, body, headers in ways_to_ask(row, WITH_KEY):
            client = await ask_as(headers, it, row.path, method, body)
            assert (client.status, code_of(client)) == (429, "insufficient_quota")
    assert paths_hit(neuron) == set()


@ROWS
async def test_a_key_pays_before_a_neuron_hears_of_it(row: Endpoint, tmp_path: Path) -> None:
    scopes = ("acct:acct-cap", "key:key-cap")
    await assert_held_before_dispatch(row, tmp_path, WITH_KEY, scopes, require_auth=True)


@ROWS
async def test_a_caller_without_a_key_is_metered_too(row: Endpoint, tmp_path: Path) -> None:
    await assert_held_before_dispatch(
        row, tmp_path, WITHOUT_KEY, ("anonymous",), require_auth=False
    )


async def assert_held_before_dispatch(
    row: Endpoint,
    directory: Path,
    callers: Mapping[str, Mapping[str, str]],
    scopes: Sequence[str],
    *,
    require_auth: bool,
) -> None:
    """When a request has arrived at the neuron, its reservation is in the journal; later it is
    closed.
    """
    ledger = directory / "ledger"
    async with (
        running(all_round_neuron(switches=turned(gated_prefill=True))) as neuron,
        core(
            directory,
            {"a": neuron.url},
            keys=[key(hard_cap=100_000)],
            require_auth=require_auth,
            catalogue=CATALOGUE,
        ) as it,
    ):
        assert row.surface is not None
        for count, (method, posted, headers) in enumerate(ways_to_ask(row, callers), start=1):
            async with trio.open_nursery() as nursery:
                client = RecordingClient()
                nursery.start_soon(ask_as, headers, it, row.path, method, posted, client)
                with trio.fail_after(20):
                    await neuron.wait_for_path(row.surface.neuron_path, count)
                holds = [entry for entry in entries_in(ledger) if entry.k == "hold"]
                assert len(holds) == count, "it reached a neuron with nothing reserved"
                assert (holds[-1].w, holds[-1].rid) == (tuple(scopes), "req_test")
                assert holds[-1].a > 0
                await neuron.allow_prefill(posted.answers)
            assert client.status == 200
    closed = [entry.i for entry in entries_in(ledger) if entry.k == "close"]
    assert closed == [entry.i for entry in entries_in(ledger) if entry.k == "hold"]


@ROWS
async def test_who_is_nobody_is_refused_where_keys_are_asked_for(
    row: Endpoint, tmp_path: Path
) -> None:
    async with running(all_round_neuron()) as neuron, core(tmp_path, {"a": neuron.url}) as it:
        for method, body, headers in ways_to_ask(row, WITHOUT_KEY):
            assert (await ask_as(headers, it, row.path, method, body)).status == 401
    assert paths_hit(neuron) == set()


@pytest.mark.parametrize(
    "row", [row for row in ENDPOINTS if row.kind in UNMETERED], ids=lambda row: row.path
)
async def test_an_endpoint_without_a_meter_reaches_no_neuron(row: Endpoint, tmp_path: Path) -> None:
    """Not even when it is asked as if it did."""
    async with (
        running(all_round_neuron()) as neuron,
        core(tmp_path, {"a": neuron.url}, require_auth=False) as it,
    ):
        path = row.path.replace("*", "sim/small")
        before = len(neuron.seen)
        bodies = [body for bodies in REQUESTS.values() for body in bodies]
        callers = [*WITH_KEY.values(), *WITHOUT_KEY.values()]
        methods = {*row.methods, "POST", "PUT"}
        for method, body, headers in itertools.product(methods, bodies, callers):
            client = await ask_as(headers, it, path, method, body)
            # A count is asked with a body, and not every body here is one that it can count.
            fine = {200, 400} if row.kind is EndpointKind.COUNT else {200}
            assert client.status in (fine if method in row.methods else {405})
        assert neuron.seen[before:] == []
    kinds = [entry.k for entry in entries_in(tmp_path / "ledger")]
    assert "hold" not in kinds


def paths_hit(neuron: SimulatedNeuron) -> set[str]:
    """Where the neuron was asked to work."""
    polls = ("/version", "/discovery", "/health", "/models")
    return {
        request.path
        for request in neuron.seen
        if request.method == "POST" or not request.path.startswith(polls)
    }
