"""What neurons say, read from bytes."""

from __future__ import annotations

from contextlib import suppress

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cortexd.config.schema import Cost, Limit
from cortexd.fleet.reports import (
    Garbage,
    Health,
    ModelLoad,
    ModelReport,
    Servable,
    read_discovery,
    read_endpoint,
    read_health,
    read_models,
    read_openai_models,
)

READERS = (read_models, read_openai_models, read_health, read_discovery, read_endpoint)


def test_a_model_entry_with_everything_is_read() -> None:
    [model] = read_models(
        b'[{"id":"Qwen/Qwen3-8B","harness":"candle","status":"recovering","devices":[0,1],'
        b'"vram_used_mb":7,"capabilities":["text","vision"],"limit":{"context":32768,"output":4096},'
        b'"cost":{"input":0.1,"output":2},"tool_call":true,"reasoning":true,'
        b'"servable":{"ok":false,"reason":"insufficient_vram","detail":"x"},"new":{"a":[1]}}]'
    )
    assert (model.id, model.status, model.harness) == ("Qwen/Qwen3-8B", "recovering", "candle")
    assert (model.devices, model.vram_used_mb) == ((0, 1), 7)
    assert model.capabilities == ("text", "vision")
    assert model.limit == Limit(context=32768, output=4096)
    assert model.cost == Cost(input=0.1, output=2.0)
    assert model.tool_call
    assert model.reasoning
    assert model.servable == Servable(False, "insufficient_vram", "x")


def test_a_model_entry_with_an_id_alone_has_defaults_for_the_rest() -> None:
    [model] = read_models(b'[{"id":"a","vram_used_mb":null,"limit":null,"cost":null}]')
    assert (model.status, model.limit, model.cost, model.servable) == (
        "loaded",
        Limit(),
        None,
        None,
    )


@pytest.mark.parametrize("context", [0, 1])
def test_a_context_that_holds_nothing_is_no_statement(context: int) -> None:
    [model] = read_models(b'[{"id":"a","limit":{"context":%d,"input":0,"output":0}}]' % context)
    assert model.limit == Limit()


def test_of_two_entries_with_one_id_the_first_counts() -> None:
    twice = b'[{"id":"a","status":"loading"},{"id":"b"},{"id":"a","status":"loaded"}]'
    assert [(each.id, each.status) for each in read_models(twice)] == [
        ("a", "loading"),
        ("b", "loaded"),
    ]


@pytest.mark.parametrize(
    ("entry", "context"),
    [
        (b'"max_model_len":4096', 4096),
        (b'"meta":{"n_ctx":2048,"n_ctx_train":9}', 2048),
        (b'"context_length":8192,"max_context_length":131072', 8192),
        (b'"max_context_length":131072', 131072),
        (b'"max_model_len":"4096"', None),
        (b'"max_model_len":true', None),
        (b'"max_model_len":-5', None),
        (b'"max_model_len":1e30', None),
        (b'"max_model_len":99999999999999999999', None),
        (b'"meta":{"n_ctx":{}}', None),
        (b'"meta":[1]', None),
        (b'"object":"model"', None),
    ],
)
def test_an_openai_server_states_its_context_in_many_ways_or_not(
    entry: bytes, context: int | None
) -> None:
    [model] = read_openai_models(b'{"object":"list","data":[{"id":"a",' + entry + b"}]}")
    assert (model.status, model.limit) == ("loaded", Limit(context=context))


def test_llama_servers_own_list_is_read() -> None:
    """Its reply has a second list, `models`, beside `data`."""
    models = read_openai_models(
        b'{"models":[{"name":"m","model":"m","tags":[""]}],"object":"list","data":[{"id":"m",'
        b'"object":"model","created":1,"owned_by":"llamacpp","meta":{"vocab_type":2,"n_vocab":259,'
        b'"n_ctx_train":512,"n_embd":64,"n_params":1,"size":2,"n_ctx":512}}]}'
    )
    assert [(each.id, each.limit.context) for each in models] == [("m", 512)]


def test_health_is_read_with_all_its_numbers() -> None:
    health = read_health(
        b'{"uptime_secs":12,"devices":[{"index":0,"vram_used_mb":5,"vram_free_mb":6,'
        b'"utilization_pct":50,"temp_c":61.5}],"activation":{"state":"pre_warming","pending":["b"],'
        b'"in_progress":"a","completed":[],"failed":[{"model_id":"c","error":"x"}]},'
        b'"models":[{"id":"a","in_flight":1,"queue_depth":2,"tok_s_decode":3.5}]}'
    )
    assert health.models == (ModelLoad("a", in_flight=1, queue_depth=2, tok_s_decode=3.5),)
    assert (health.uptime_secs, health.devices[0].temp_c) == (12, 61.5)
    assert (health.activation.state, health.activation.failed[0].model_id) == ("pre_warming", "c")


def test_health_and_discovery_may_be_nearly_empty() -> None:
    assert read_health(b'{"uptime_secs":1}').activation.state == "ready"
    assert read_discovery(b"{}").max_prompt_tokens == 0


def test_discovery_is_read() -> None:
    found = read_discovery(
        b'{"hostname":"beast","os":"linux","kernel":"6","cuda_version":null,"devices":[{"index":0,'
        b'"name":"RTX","vram_total_mb":24576,"compute_capability":"8.9"}],"harnesses":["candle"],'
        b'"cuda_unavailable_reason":"driver","max_prompt_tokens":4096}'
    )
    assert (found.hostname, found.devices[0].name, found.max_prompt_tokens) == (
        "beast",
        "RTX",
        4096,
    )
    assert found.cuda_unavailable_reason == "driver"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b'[{"id":"a"',
        b'{"error":"x"}',
        b"[1]",
        b"[{}]",
        b'[{"id":""}]',
        b'[{"id":7}]',
        b'[{"id":"a"},{"id":null}]',
        b'[{"id":"a","status":7}]',
        b'[{"id":"a","devices":[-1]}]',
        b'[{"id":"a","limit":{"context":-1}}]',
        b'[{"id":"a","limit":{"context":1e999}}]',
        b'[{"id":"a","limit":{"context":9007199254740992}}]',
        b'[{"id":"a","cost":{"input":NaN}}]',
        b'[{"id":"a","cost":{"input":-0.5}}]',
        b'[{"id":"a","servable":{"reason":"x"}}]',
        b'[{"id":"\xff"}]',
        b"[" * 100_000,
    ],
)
def test_one_wrong_thing_makes_the_whole_model_list_garbage(body: bytes) -> None:
    with pytest.raises(Garbage):
        read_models(body)


@pytest.mark.parametrize("body", [b"[]", b"{}", b'{"data":{}}', b'{"data":[{"object":"m"}]}'])
def test_what_is_no_openai_list_is_garbage(body: bytes) -> None:
    with pytest.raises(Garbage):
        read_openai_models(body)


@pytest.mark.parametrize(
    "load", [b'"in_flight":-1', b'"queue_depth":1.5', b'"tok_s_decode":"fast"']
)
def test_a_load_with_an_impossible_number_is_garbage(load: bytes) -> None:
    with pytest.raises(Garbage):
        read_health(b'{"uptime_secs":1,"models":[{"id":"a",' + load + b"}]}")


def test_the_reason_names_the_place_and_repeats_nothing() -> None:
    with pytest.raises(Garbage) as caught:
        read_models(b'[{"id":"secret","status":["secret"]}]')
    assert caught.value.reason == "Expected `str`, got `array` - at `$[0].status`"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)
MODEL_FIELDS = sorted(
    {
        *ModelReport.__struct_fields__,
        *Limit.__struct_fields__,
        *Servable.__struct_fields__,
        *Health.__struct_fields__,
        *("in_flight", "data", "meta", "n_ctx", "max_model_len", "url", "index", "state", "failed"),
    }
)
NEARLY_RIGHT = st.recursive(
    JSON,
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(MODEL_FIELDS), inner, max_size=4)
    ),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None)  # the machine may be busy
@given(said=NEARLY_RIGHT)
def test_any_json_is_read_or_is_garbage(said: object) -> None:
    body = msgspec.json.encode(said)
    for read in READERS:
        with suppress(Garbage):
            read(body)


@settings(deadline=None)  # the machine may be busy
@given(body=st.binary(max_size=40))
def test_any_bytes_are_read_or_are_garbage(body: bytes) -> None:
    for read in READERS:
        with suppress(Garbage):
            read(body)
