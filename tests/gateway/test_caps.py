"""Several caps, caps on requests, and what can be said of a key, through the whole core."""

import json
from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest
import trio

from cortexd.config.schema import (
    Account,
    CalendarWindow,
    Catalogue,
    FixedWindow,
    Key,
    RequestCap,
    RollingWindow,
    TokenCap,
)
from cortexd.ledger.entries import account_scope, key_scope
from tests.support.core import Core, RecordingClient, core, key
from tests.support.daemon_process import chat
from tests.support.fake_neuron import fake_neuron

PROMPT = 32  # the bytes of chat()'s messages
FIFTEEN = (5, 10)
HOUR = RollingWindow(3600)
ALL_ROOM = 1 << 60  # more than any disk has free


def with_options(text: str = "sk-cap", key_id: str = "key-cap", **options: object) -> Key:
    """A key without a cap of its own but for these settings."""
    return msgspec.structs.replace(key(text, key_id, hard_cap=None), **options)


async def budget_of(it: Core) -> Mapping[str, object]:
    """What GET /v1/budget answers."""
    answer: Mapping[str, object] = json.loads(
        (await it.ask(b"", method="GET", path="/v1/budget")).body
    )
    return answer


# Several caps.


async def test_of_several_caps_the_one_that_bites_is_named_and_nothing_is_reserved(
    tmp_path: Path,
) -> None:
    hourly, daily, total = TokenCap(100, HOUR), TokenCap(200, FixedWindow(86_400)), TokenCap(500)
    several = with_options(caps=(total, hourly, daily))
    async with (
        fake_neuron(fixed_usage=FIFTEEN) as neuron,
        core(tmp_path, {"a": neuron.url}, keys=[several]) as it,
    ):
        for max_tokens, span, code in (
            (100 - PROMPT + 1, "100 tokens in any 3600 s", "rate_limit_exceeded"),
            (200 - PROMPT + 1, "100 tokens in any 3600 s", "rate_limit_exceeded"),
            (500 - PROMPT + 1, "500 tokens in all", "insufficient_quota"),
        ):
            refused = await it.ask(chat(max_tokens=max_tokens))
            assert (refused.status, refused.error["code"]) == (429, code)
            assert span in str(refused.error["message"])
        assert neuron.chat_hits == 0
        answered = await it.ask(chat(max_tokens=100 - PROMPT))
        assert (answered.status, answered.headers["x-ratelimit-remaining-tokens"]) == (200, "0")
        standings = await it.desk.standings((key_scope("key-cap"),))
        assert {(one.spent, one.reserved) for one in standings} == {(15, 0)}


async def test_a_civil_month_says_when_it_begins_again(tmp_path: Path) -> None:
    month = with_options(caps=(TokenCap(50, CalendarWindow("month", "Europe/Berlin")),))
    async with (
        fake_neuron(fixed_usage=FIFTEEN) as neuron,
        core(tmp_path, {"a": neuron.url}, keys=[month]) as it,
    ):
        assert (await it.ask(chat(max_tokens=18))).status == 200
        refused = await it.ask(chat(max_tokens=18))
        message = str(refused.error["message"])
        assert refused.error["code"] == "rate_limit_exceeded"
        assert "50 tokens per calendar month (Europe/Berlin), which begins again at 2" in message
        assert "-01T00:00:00+0" in message
        assert 0 < int(refused.headers["retry-after"]) <= 31 * 86_400 + 3600
        budget = await budget_of(it)
        window = {"kind": "calendar", "period": "month", "time_zone": "Europe/Berlin"}
        assert (budget["window"], budget["spent"]) == (window, 15)


# Requests, and requests in flight.


async def test_requests_are_counted_when_they_are_taken_and_refused_beyond_the_cap(
    tmp_path: Path,
) -> None:
    two = with_options(max_requests=(RequestCap(2, HOUR),))
    async with (
        fake_neuron() as neuron,
        core(tmp_path, {"a": neuron.url}, keys=[two]) as it,
    ):
        answers = [await it.ask(chat()) for _ in range(3)]
        assert [one.status for one in answers] == [200, 200, 429]
        assert [one.headers["x-ratelimit-remaining-requests"] for one in answers] == ["1", "0", "0"]
        assert "x-ratelimit-limit-tokens" not in answers[0].headers
        refused = answers[2]
        assert refused.error["code"] == "rate_limit_exceeded"
        assert "its cap is 2 requests in any 3600 s; 2 made" in str(refused.error["message"])
        assert 3500 < int(refused.headers["retry-after"]) <= 3605
        assert neuron.chat_hits == 2
        [cap] = json.loads((await it.ask(b"", method="GET", path="/v1/budget")).body)[
            "max_requests"
        ]
        assert (cap["count"], cap["spent"], cap["available"]) == (2, 2, 0)


async def test_a_balance_of_requests_is_a_quota(tmp_path: Path) -> None:
    from_schema = with_options(max_requests=(RequestCap(1, key().window),))
    async with fake_neuron() as neuron, core(tmp_path, {"a": neuron.url}, keys=[from_schema]) as it:
        assert (await it.ask(chat())).status == 200
        refused = await it.ask(chat())
        assert (refused.status, refused.error["code"]) == (429, "insufficient_quota")
        assert "retry-after" not in refused.headers


async def test_no_more_requests_are_in_flight_than_allowed_and_the_place_comes_back(
    tmp_path: Path,
) -> None:
    one_at_a_time = with_options(max_in_flight=1)
    async with (
        fake_neuron(gated=True, reply_tokens=2) as neuron,
        core(tmp_path, {"a": neuron.url}, keys=[one_at_a_time]) as it,
    ):
        first = RecordingClient()

        async def ask() -> None:
            await it.ask(chat(stream=True), client=first)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await neuron.allow(1)
            await first.wait_for_tokens(1)
            refused = await it.ask(chat())
            assert (refused.status, refused.headers["retry-after"]) == (429, "1")
            assert refused.error["code"] == "rate_limit_exceeded"
            assert "1 request at a time; 1 open" in str(refused.error["message"])
            [cap] = json.loads((await it.ask(b"", method="GET", path="/v1/budget")).body)[
                "max_in_flight"
            ]
            assert (cap["max_in_flight"], cap["in_flight"], cap["available"]) == (1, 1, 0)
            await neuron.allow(1)
        neuron.switches.gated = False
        assert (await it.ask(chat())).status == 200
        assert neuron.chat_hits == 2


# Clamping.


async def test_clamping_lowers_the_output_to_what_is_left_and_tells_the_neuron(
    tmp_path: Path,
) -> None:
    clamped = with_options(hard_cap=100, over_cap="clamp", min_output=10)
    async with (
        fake_neuron(reply_tokens=500) as neuron,
        core(tmp_path, {"a": neuron.url}, keys=[clamped]) as it,
    ):
        answered = await it.ask(chat(max_tokens=500))
        assert answered.status == 200
        assert json.loads(neuron.seen[-1].body)["max_tokens"] == 100 - PROMPT
        [told] = it.told
        assert (told.reserved, told.clamped_from) == (100, PROMPT + 500)
        assert (await it.standing()).spent <= 100


async def test_a_request_that_fits_is_not_clamped(tmp_path: Path) -> None:
    clamped = with_options(hard_cap=1000, over_cap="clamp", min_output=10)
    async with fake_neuron() as neuron, core(tmp_path, {"a": neuron.url}, keys=[clamped]) as it:
        await it.ask(chat(max_tokens=20))
        assert json.loads(neuron.seen[-1].body)["max_tokens"] == 20
        assert (it.told[0].reserved, it.told[0].clamped_from) == (PROMPT + 20, None)


@pytest.mark.parametrize(
    ("hard_cap", "max_tokens", "n", "status", "sent"),
    [
        (PROMPT + 10, 500, 1, 200, 10),
        (PROMPT + 9, 500, 1, 429, None),
        (PROMPT + 5, 5, 1, 200, 5),
        (PROMPT + 4, 5, 1, 429, None),
        (PROMPT + 25, 500, 2, 200, 12),
        (PROMPT + 19, 500, 2, 429, None),
    ],
)
async def test_clamping_goes_down_to_the_least_output_per_choice_and_no_further(
    tmp_path: Path, hard_cap: int, max_tokens: int, n: int, status: int, sent: int | None
) -> None:
    """Who asks for less than `min_output` is content with that."""
    clamped = with_options(hard_cap=hard_cap, over_cap="clamp", min_output=10)
    async with fake_neuron() as neuron, core(tmp_path, {"a": neuron.url}, keys=[clamped]) as it:
        answer = await it.ask(chat(max_tokens=max_tokens, n=n))
        assert answer.status == status
        if sent is not None:
            assert json.loads(neuron.seen[-1].body)["max_tokens"] == sent
        else:
            least = PROMPT + n * min(10, max_tokens)
            assert f"needs at least {least}." in str(answer.error["message"])
            assert neuron.chat_hits == 0


async def test_a_stream_that_runs_past_its_clamped_output_is_cut_there(tmp_path: Path) -> None:
    clamped = with_options(hard_cap=PROMPT + 10, over_cap="clamp", min_output=10)
    async with (
        fake_neuron(reply_tokens=100, ignore_max_tokens=True) as neuron,
        core(tmp_path, {"a": neuron.url}, keys=[clamped]) as it,
    ):
        client = await it.ask(chat(stream=True, max_tokens=100))
        assert client.tokens <= 10
        assert '"finish_reason":"length"' in client.events()[-2]
        assert (await it.standing()).spent == PROMPT + 10


# Models.

ALIASES = Catalogue(aliases={"small": "sim/small"})


@pytest.mark.parametrize("allowed", ["sim/small", "small"])
async def test_a_listed_model_may_be_used_under_each_of_its_names(
    tmp_path: Path, allowed: str
) -> None:
    listed = with_options(models=("other/model", allowed))
    async with (
        fake_neuron() as neuron,
        core(tmp_path, {"a": neuron.url}, keys=[listed], catalogue=ALIASES) as it,
    ):
        for name in ("sim/small", "small"):
            assert (await it.ask(chat(model=name))).status == 200


async def test_a_model_that_is_not_listed_is_refused_before_anything_is_reserved(
    tmp_path: Path,
) -> None:
    limited = with_options(models=("other/model",), max_requests=(RequestCap(5, HOUR),))
    async with (
        fake_neuron() as neuron,
        core(tmp_path, {"a": neuron.url}, keys=[limited], catalogue=ALIASES) as it,
    ):
        for name in ("sim/small", "small", "no/such"):
            refused = await it.ask(chat(model=name))
            assert (refused.status, refused.error["code"]) == (403, "model_not_allowed")
            assert (refused.error["type"], refused.error["param"]) == ("permission_error", "model")
            assert refused.headers["x-should-retry"] == "false"
            assert name in str(refused.error["message"])
        assert neuron.chat_hits == 0
        [standing] = await it.desk.standings((key_scope("key-cap"),))
        assert standing.spent == 0
        listed = await it.ask(b"", method="GET", path="/v1/models")
        assert json.loads(listed.body)["data"] == []
        one = await it.ask(b"", method="GET", path="/v1/models/sim/small")
        assert (one.status, one.error["code"]) == (403, "model_not_allowed")


async def test_the_list_of_models_is_that_of_the_key(tmp_path: Path) -> None:
    keys = [with_options(models=("sim/small",)), with_options("sk-all", "all")]
    async with (
        fake_neuron() as neuron,
        core(
            tmp_path,
            {"a": neuron.url},
            keys=keys,
            catalogue=Catalogue(models=(), aliases={"small": "sim/small", "else": "other/model"}),
        ) as it,
    ):
        names = {}
        for text in ("sk-cap", "sk-all"):
            client = await it.ask(
                b"", method="GET", path="/v1/models", authorization=f"Bearer {text}"
            )
            names[text] = {entry["id"] for entry in json.loads(client.body)["data"]}
        assert names["sk-cap"] == {"sim/small", "small"}
        assert names["sk-all"] == {"sim/small", "small"}  # an alias that leads nowhere is no name
        found = await it.ask(b"", method="GET", path="/v1/models/small")
        assert json.loads(found.body)["id"] == "small"


# Shadows.


async def test_a_shadow_counts_and_tells_and_refuses_nothing(tmp_path: Path) -> None:
    shadow = with_options(hard_cap=40, max_in_flight=1, shadow=True)
    async with (
        fake_neuron(fixed_usage=FIFTEEN) as neuron,
        core(tmp_path, {"a": neuron.url}, keys=[shadow]) as it,
    ):
        for _ in range(2):
            assert (await it.ask(chat(max_tokens=5))).status == 200
            assert it.told[-1].refused is None
        first, second = (told.would_refuse for told in it.told)
        assert first is None
        assert second is not None
        assert (second.standing.scope, second.asked) == (key_scope("key-cap"), PROMPT + 5)
        assert second.standing.spent == 10
        budget = await budget_of(it)
        assert (budget["spent"], budget["shadow"]) == (20, True)
        answer = await it.ask(chat(max_tokens=500))
        assert (answer.status, "x-ratelimit-limit-tokens" in answer.headers) == (200, False)


async def test_behind_a_shadow_another_owners_cap_still_refuses(tmp_path: Path) -> None:
    shadow = with_options(hard_cap=40, shadow=True)
    async with (
        fake_neuron(fixed_usage=FIFTEEN) as neuron,
        core(tmp_path, {"a": neuron.url}, keys=[shadow], accounts=[Account("acct-cap", 60)]) as it,
    ):
        assert (await it.ask(chat(max_tokens=20))).status == 200
        refused = await it.ask(chat(max_tokens=20))
        assert refused.status == 429
        assert "account 'acct-cap'" in str(refused.error["message"])
        [standing] = await it.desk.standings((account_scope("acct-cap"),))
        assert (standing.spent, standing.reserved) == (15, 0)


# While nothing can be written down.


async def test_without_room_nothing_is_served_unless_the_operator_said_so(tmp_path: Path) -> None:
    async with (
        fake_neuron() as neuron,
        core(tmp_path, {"a": neuron.url}, keys=[with_options()], room_bytes_min=ALL_ROOM) as it,
    ):
        refused = await it.ask(chat())
        assert (refused.status, refused.error["code"]) == (503, "ledger_unavailable")
        assert "retry-after" in refused.headers
        assert "disk is nearly full" in str(refused.error["message"])
        assert neuron.chat_hits == 0
        budget = await it.ask(b"", method="GET", path="/v1/budget")
        assert budget.status == 200, "to read what was spent takes no room"


async def test_the_uncapped_can_be_served_without_the_ledger_and_the_capped_never(
    tmp_path: Path,
) -> None:
    keys = [
        with_options(),
        with_options("sk-tokens", "tokens", hard_cap=10_000),
        with_options("sk-flight", "flight", max_in_flight=9),
        with_options("sk-shadow", "shadow", hard_cap=1, shadow=True),
        with_options("sk-account", "account", account_id="capped"),
    ]
    statuses = {}
    async with (
        fake_neuron(fixed_usage=FIFTEEN) as neuron,
        core(
            tmp_path,
            {"a": neuron.url},
            keys=keys,
            accounts=[Account("capped", 10_000)],
            require_auth=False,
            room_bytes_min=ALL_ROOM,
            serve_uncapped=True,
        ) as it,
    ):
        for name in ("cap", "tokens", "flight", "shadow", "account", "nobody"):
            client = await it.ask(chat(stream=True), authorization=f"Bearer sk-{name}")
            statuses[name] = client.status
        served = [told for told in it.told if told.unjournalled]
    assert [name for name, status in statuses.items() if status == 200] == [
        "cap",
        "shadow",
        "nobody",
    ]
    assert set(statuses.values()) == {200, 503}
    assert [told.charge.tokens for told in served if told.charge] == [15, 15, 15]
    assert neuron.chat_hits == 3


async def test_with_a_healthy_ledger_the_policy_changes_nothing(tmp_path: Path) -> None:
    async with (
        fake_neuron(fixed_usage=FIFTEEN) as neuron,
        core(tmp_path, {"a": neuron.url}, keys=[with_options()], serve_uncapped=True) as it,
    ):
        await it.ask(chat())
        assert not it.told[0].unjournalled
        totals = await it.desk.totals(key_scope("key-cap"))
        assert totals.spent == 15


async def test_a_busy_ledger_is_told_from_one_that_is_not_well(tmp_path: Path) -> None:
    async with (
        fake_neuron() as neuron,
        core(tmp_path, {"a": neuron.url}, keys=[with_options()], calls_max=0) as it,
    ):
        for method, path, body in (
            ("POST", "/v1/chat/completions", chat()),
            ("GET", "/v1/budget", b""),
        ):
            refused = await it.ask(body, method=method, path=path)
            assert (refused.status, refused.error["code"]) == (503, "ledger_unavailable")
            assert "The ledger is busy" in str(refused.error["message"])
            assert refused.headers["retry-after"] == "5"
        assert neuron.chat_hits == 0


async def test_a_ledger_that_is_gone_for_another_reason_serves_nobody(tmp_path: Path) -> None:
    """Closed, and not known to have failed: then nobody can say that metering is impossible."""
    async with (
        fake_neuron() as neuron,
        core(tmp_path, {"a": neuron.url}, keys=[with_options()], serve_uncapped=True) as it,
    ):
        await it.desk.aclose()
        refused = await it.ask(chat())
        assert refused.status == 503
        assert "has stopped" in str(refused.error["message"])
        assert neuron.chat_hits == 0


@pytest.mark.parametrize(
    ("room_bytes_min", "ledger", "status"), [(0, "ok", "ok"), (ALL_ROOM, "low_on_room", "impaired")]
)
async def test_health_tells_of_the_ledger(
    tmp_path: Path, room_bytes_min: int, ledger: str, status: str
) -> None:
    async with (
        fake_neuron() as neuron,
        core(tmp_path, {"a": neuron.url}, room_bytes_min=room_bytes_min) as it,
    ):
        health = json.loads((await it.ask(b"", method="GET", path="/health")).body)
        assert (health["ledger"], health["status"]) == (ledger, status)
        assert ("ledger_action" in health) == (ledger != "ok")
