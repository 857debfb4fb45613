"""Prompts that do not fit by their bytes, and the engines that are asked what they come to."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from cortexd.config.schema import Key, NeuronKind
from cortexd.gateway import counting
from tests.fleet.engines.recorded import BREAKS_OFF, SILENT, Recorded, Reply
from tests.fleet.engines.test_llama_server import ALL
from tests.fleet.engines.test_vllm_and_sglang import VLLM
from tests.fleet.scripted import scripted
from tests.gateway.test_engine_kinds import ANSWER, PATH
from tests.support.core import Core, core, key

COUNT = "/v1/chat/completions/input_tokens"
COUNTED: Reply = (200, {"object": "response.input_tokens", "input_tokens": 30})
WORDS = "word " * 60
BODY = {"model": "endless", "messages": [{"role": "user", "content": WORDS}], "max_tokens": 20}
CAP = 100
"""Less than the bytes of the prompt, more than its tokens and the output."""


@asynccontextmanager
async def before(
    directory: Path,
    replies: Mapping[str, Reply],
    *,
    hard_cap: int = CAP,
    kind: NeuronKind = "llama-server",
    keys: tuple[Key, ...] = (),
    exact_counts: bool = True,
    anthropic: Collection[str] = (),
) -> AsyncIterator[tuple[Core, Recorded]]:
    """A gateway with one capped key, in front of one engine."""
    answer = {**ANSWER, "usage": {"prompt_tokens": 30, "completion_tokens": 2}}
    recorded = Recorded({**ALL, f"POST {PATH}": (200, answer), **replies})
    async with (
        scripted(recorded.script, within_seconds=30) as server,
        core(
            directory,
            {"beast": server.url},
            kind=kind,
            keys=keys or (key(hard_cap=hard_cap),),
            exact_counts=exact_counts,
            anthropic=anthropic,
        ) as it,
    ):
        yield it, recorded


def paths(recorded: Recorded) -> list[str]:
    """What was posted where."""
    return [path for path, _ in recorded.sent]


async def test_a_prompt_that_fits_by_its_tokens_is_served(tmp_path: Path) -> None:
    async with before(tmp_path, {f"POST {COUNT}": COUNTED}) as (it, recorded):
        client = await it.ask(BODY)
        assert client.status == 200, client.body
        standing = await it.standing()
        assert (standing.spent, standing.reserved) == (32, 0)
        [told] = it.told
        assert (told.refused, told.reserved) == (None, 50)
    assert paths(recorded) == [COUNT, PATH]
    counted, served = (body for _, body in recorded.sent)
    assert isinstance(counted, dict)
    assert isinstance(served, dict)
    assert counted["messages"] == served["messages"] == BODY["messages"]


async def test_a_request_that_fits_by_its_bytes_asks_nobody(tmp_path: Path) -> None:
    async with before(tmp_path, {f"POST {COUNT}": COUNTED}, hard_cap=10_000) as (it, recorded):
        assert (await it.ask(BODY)).status == 200
    assert paths(recorded) == [PATH]


async def test_an_output_that_does_not_fit_alone_asks_nobody(tmp_path: Path) -> None:
    """So a key that is used up costs its neurons nothing."""
    async with before(tmp_path, {f"POST {COUNT}": COUNTED}) as (it, recorded):
        client = await it.ask({**BODY, "max_tokens": CAP})
        assert client.status == 429
        assert client.error["code"] == "insufficient_quota"
    assert paths(recorded) == []


async def test_a_prompt_that_does_not_fit_by_its_tokens_either_is_refused(tmp_path: Path) -> None:
    too_many = (200, {"input_tokens": CAP})
    async with before(tmp_path, {f"POST {COUNT}": too_many}) as (it, recorded):
        client = await it.ask(BODY)
        assert client.status == 429
        assert (await it.standing()).reserved == 0
    assert paths(recorded) == [COUNT]


@pytest.mark.parametrize(
    "answer",
    [
        (404, {"error": {"message": "File Not Found", "code": 404}}),
        (500, "oops"),
        (200, {"input_tokens": 0}),
        (200, {"input_tokens": 10**6}),
        (200, "<html>"),
        BREAKS_OFF,
    ],
)
async def test_without_a_believable_count_the_bytes_decide(tmp_path: Path, answer: Reply) -> None:
    async with before(tmp_path, {f"POST {COUNT}": answer}) as (it, recorded):
        assert (await it.ask(BODY)).status == 429
    assert paths(recorded) == [COUNT]


async def test_an_engine_that_takes_long_to_count_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counting, "COUNT_SECONDS", 0.1)
    async with before(tmp_path, {f"POST {COUNT}": SILENT}) as (it, recorded):
        assert (await it.ask(BODY)).status == 429
    assert paths(recorded) == [COUNT]


async def test_a_kind_that_cannot_count_is_not_asked(tmp_path: Path) -> None:
    async with before(tmp_path, {}, kind="openai") as (it, recorded):
        assert (await it.ask(BODY)).status == 429
    assert paths(recorded) == []


async def test_the_operator_may_have_the_bytes_decide(tmp_path: Path) -> None:
    replies = {f"POST {COUNT}": COUNTED}
    async with before(tmp_path, replies, exact_counts=False) as (it, recorded):
        assert (await it.ask(BODY)).status == 429
    assert paths(recorded) == []


async def test_an_image_is_not_counted(tmp_path: Path) -> None:
    """What a picture comes to, an engine says only once it has read it."""
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    body = {**BODY, "messages": [{"role": "user", "content": [image]}]}
    async with before(tmp_path, {f"POST {COUNT}": COUNTED}) as (it, recorded):
        assert (await it.ask(body)).status == 429
    assert paths(recorded) == []


async def test_documents_that_vllm_does_not_count_are_not_left_out(tmp_path: Path) -> None:
    replies: dict[str, Reply] = {**VLLM, "POST /tokenize": (200, {"count": 30})}
    body = {**BODY, "documents": [{"text": "word " * 1000}], "model": "org/a"}
    async with before(tmp_path, replies, kind="vllm") as (it, recorded):
        assert (await it.ask(body)).status == 429
    assert paths(recorded) == []


@pytest.mark.parametrize(
    ("other", "status"), [(30, 200), (45, 200), (CAP - 10, 429), ("does not know", 429)]
)
async def test_of_two_engines_with_their_own_templates_the_larger_count_decides(
    tmp_path: Path, other: object, status: int
) -> None:
    """Whoever of them gets the request, it fits."""
    answer = {**ANSWER, "usage": {"prompt_tokens": 30, "completion_tokens": 2}}
    usual = {**ALL, f"POST {PATH}": (200, answer)}
    one, two = Recorded({**usual, f"POST {COUNT}": COUNTED}), Recorded(usual)
    two.replies[f"POST {COUNT}"] = (200, {"input_tokens": other})
    async with (
        scripted(one.script, within_seconds=30) as first,
        scripted(two.script, within_seconds=30) as second,
    ):
        for urls in ((first.url, second.url), (second.url, first.url)):
            neurons = dict(zip(("a", "b"), urls, strict=True))
            keys = (key(hard_cap=CAP),)
            directory = tmp_path / str(urls.index(first.url))
            async with core(directory, neurons, kind="llama-server", keys=keys) as it:
                assert (await it.ask(BODY)).status == status
                if status == 200:
                    assert isinstance(other, int)
                    assert it.told[-1].reserved == other + 20


async def test_a_message_is_counted_as_the_chat_that_it_becomes_or_not_at_all(
    tmp_path: Path,
) -> None:
    replies = {f"POST {COUNT}": COUNTED}
    for anthropic, status in (((), 200), (("beast",), 429)):
        directory = tmp_path / str(status)
        async with before(directory, replies, anthropic=anthropic) as (it, recorded):
            assert (await it.ask(BODY, path="/v1/messages")).status == status
        assert paths(recorded) == ([COUNT, PATH] if status == 200 else [])


async def test_a_key_whose_output_may_be_cut_gets_what_is_left(tmp_path: Path) -> None:
    clamped = Key(
        account_id="acct-cap",
        key_id="key-cap",
        key_sha256=key().key_sha256,
        hard_cap=CAP,
        over_cap="clamp",
        min_output=5,
    )
    replies = {f"POST {COUNT}": COUNTED}
    async with before(tmp_path, replies, keys=(clamped,)) as (it, recorded):
        assert (await it.ask({**BODY, "max_tokens": 500})).status == 200
    served = recorded.sent[-1][1]
    assert isinstance(served, dict)
    assert served["max_tokens"] == CAP - 30


async def test_a_count_teaches_nothing_about_the_template(tmp_path: Path) -> None:
    """The count was by two too small; the bytes were not."""
    low = (200, {"input_tokens": 28})
    async with before(tmp_path, {f"POST {COUNT}": low}) as (it, _):
        assert (await it.ask(BODY)).status == 200
        assert it.desk.template_tokens("endless") == 0
