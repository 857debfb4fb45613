"""The list of models."""

import json

from cortexd.dialects.models import ModelEntry, model_body, models_entry, models_list


def entry(model: str = "org/m", **known: int | None) -> ModelEntry:
    return models_entry(
        model=model,
        created_unix_seconds=1_700_000_000,
        context=known.get("context"),
        input_limit=known.get("input_limit"),
        output=known.get("output"),
        modalities=["text", "image"],
        loaded=True,
        feasible_on=["beast"],
        locations=[("beast", "loaded")],
        tool_call=True,
        reasoning=False,
        cost={"input": 0.1, "output": 0.4} if known else None,
    )


def test_an_entry_speaks_to_every_kind_of_client() -> None:
    body = json.loads(model_body(entry(context=32768, input_limit=28672, output=4096)))
    assert body == {
        "id": "org/m",
        "object": "model",
        "type": "model",
        "created": 1_700_000_000,
        "created_at": "2023-11-14T22:13:20Z",
        "display_name": "org/m",
        "owned_by": "cortexd",
        "limit": {"context": 32768, "input": 28672, "output": 4096},
        "max_input_tokens": 28672,
        "max_tokens": 4096,
        "max_output_tokens": 4096,
        "max_model_len": 32768,
        "modalities": ["text", "image"],
        "loaded": True,
        "feasible_on": ["beast"],
        "locations": [{"node": "beast", "status": "loaded"}],
        "tool_call": True,
        "reasoning": False,
        "cost": {"input": 0.1, "output": 0.4},
    }


def test_what_nobody_knows_is_left_out() -> None:
    body = json.loads(model_body(entry()))
    assert body["limit"] == {}
    assert not body.keys() & {"cost", "max_tokens", "max_model_len", "max_input_tokens"}


def test_without_an_input_limit_the_context_is_the_limit() -> None:
    assert json.loads(model_body(entry(context=4096)))["max_input_tokens"] == 4096


def test_the_list_is_whole_and_names_its_ends() -> None:
    body = json.loads(models_list([entry("a"), entry("b")]))
    assert [model["id"] for model in body["data"]] == ["a", "b"]
    assert (body["object"], body["has_more"]) == ("list", False)
    assert (body["first_id"], body["last_id"]) == ("a", "b")
    assert json.loads(models_list([]))["first_id"] is None
