"""Requests in Anthropic's dialect as hypothesis makes them, and what a chat has to keep of each.

`kept` says in its own simple way what the contract of the translation is: which words arrive under
which role, in which order. It shares no code with the translator.
"""

import json
from typing import Any

from hypothesis import strategies as st

Json = dict[str, Any]

WORDS = st.text(max_size=6) | st.sampled_from(["中文", "e\u0301", "<&'>", '{"a": 1}', "U+1D1C0 𝅗𝅥"])
IDS = st.text(alphabet="abcdefgh0123456789_-", min_size=1, max_size=8)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | WORDS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(WORDS, inner, max_size=2),
    max_leaves=4,
)
OBJECTS = st.dictionaries(WORDS, JSON_VALUES, max_size=3)


def block(kind: str, **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Json]:
    """A block of one type."""
    return st.fixed_dictionaries({"type": st.just(kind), **fields})


TEXTS = block("text", text=WORDS)
THOUGHTS = block("thinking", thinking=WORDS, signature=WORDS)
SECRETS = block("redacted_thinking", data=WORDS)
USES = block("tool_use", id=IDS, name=IDS, input=OBJECTS)
IMAGES = block(
    "image",
    source=st.fixed_dictionaries(
        {"type": st.just("base64"), "media_type": st.just("image/png"), "data": IDS}
    )
    | st.fixed_dictionaries({"type": st.just("url"), "url": st.just("https://x.example/i.png")}),
)
RESULTS = st.fixed_dictionaries(
    {"type": st.just("tool_result"), "tool_use_id": IDS},
    optional={
        "content": WORDS | st.lists(TEXTS | IMAGES, max_size=3),
        "is_error": st.booleans(),
        "cache_control": st.just({"type": "ephemeral"}),
    },
)


def turn(role: str, content: st.SearchStrategy[Any]) -> st.SearchStrategy[Json]:
    """A turn of one role."""
    return st.fixed_dictionaries({"role": st.just(role), "content": content})


USER_TURNS = turn("user", WORDS | st.lists(TEXTS | IMAGES | RESULTS, max_size=4))
ASSISTANT_TURNS = turn("assistant", WORDS | st.lists(TEXTS | THOUGHTS | SECRETS | USES, max_size=4))
SYSTEM = WORDS | st.lists(TEXTS, max_size=3)
TURNS = USER_TURNS | ASSISTANT_TURNS | turn("system", SYSTEM)
TOOLS = st.fixed_dictionaries(
    {"name": IDS, "input_schema": OBJECTS},
    optional={"description": WORDS, "type": st.just("custom"), "strict": st.booleans()},
)
REQUESTS = st.fixed_dictionaries(
    {
        "model": st.just("m"),
        "messages": st.lists(TURNS, max_size=5).map(
            lambda turns: [{"role": "user", "content": "hi"}, *turns]
        ),
    },
    optional={
        "max_tokens": st.integers(1, 99),
        "system": SYSTEM,
        "tools": st.lists(TOOLS, max_size=3),
        "tool_choice": st.sampled_from(
            [
                {"type": "auto"},
                {"type": "any", "disable_parallel_tool_use": True},
                {"type": "tool", "name": "f"},
                {"type": "none"},
            ]
        ),
        "thinking": st.sampled_from(
            [{"type": "adaptive"}, {"type": "disabled"}, {"type": "enabled", "budget_tokens": 9}]
        ),
        "output_config": st.sampled_from([{"effort": "low"}, {"effort": "max"}, {}]),
        "stop_sequences": st.lists(WORDS, max_size=2),
        "temperature": st.floats(0, 1),
        "top_k": st.integers(1, 50),
        "metadata": st.just({"user_id": "u"}),
        "service_tier": st.just("auto"),
        "stream": st.booleans(),
    },
)


def kept(request: Json) -> list[Json]:
    """The messages that a chat has to hold for this request."""
    turns = request["messages"]
    systems = [request.get("system", "")]
    systems += [each["content"] for each in turns if each["role"] == "system"]
    texts = [text for content in systems for text in _texts(content) if text]
    messages: list[Json] = []
    if texts:
        messages.append({"role": "system", "content": "\n\n".join(texts)})
    for each in turns:
        if each["role"] == "assistant":
            messages.append(_assistant(each["content"]))
        elif each["role"] == "user":
            messages += _user(each["content"])
    return messages


def _blocks(content: Any) -> list[Json]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _texts(content: Any) -> list[str]:
    return [each["text"] for each in _blocks(content) if each["type"] == "text"]


def _assistant(content: Any) -> Json:
    blocks = _blocks(content)
    text = "\n".join(_texts(blocks))
    message: Json = {"role": "assistant", "content": text}
    thoughts = [each["thinking"] for each in blocks if each["type"] == "thinking"]
    if "".join(thoughts):
        message["reasoning_content"] = "\n".join(thoughts)
    calls = [each for each in blocks if each["type"] == "tool_use"]
    if calls:
        message["content"] = text or None
        message["tool_calls"] = [
            {
                "id": each["id"],
                "type": "function",
                "function": {"name": each["name"], "arguments": each["input"]},
            }
            for each in calls
        ]
    return message


def _user(content: Any) -> list[Json]:
    blocks = _blocks(content)
    results = [each for each in blocks if each["type"] == "tool_result"]
    messages = [_result(each) for each in results]
    shown = [
        inner
        for each in results
        for inner in _blocks(each.get("content", []))
        if inner["type"] == "image"
    ]
    parts = [_part(each) for each in shown + [b for b in blocks if b["type"] != "tool_result"]]
    if parts or not results:
        only_text = all(part["type"] == "text" for part in parts)
        joined = "\n".join(part["text"] for part in parts) if only_text else parts
        messages.append({"role": "user", "content": joined})
    return messages


def _result(result: Json) -> Json:
    text = "\n".join(_texts(result.get("content", [])))
    if result.get("is_error"):
        text = f"Error: {text}" if text else "Error"
    return {"role": "tool", "tool_call_id": result["tool_use_id"], "content": text}


def _part(each: Json) -> Json:
    if each["type"] == "text":
        return {"type": "text", "text": each["text"]}
    source = each["source"]
    url = source.get("url") or f"data:{source['media_type']};base64,{source['data']}"
    return {"type": "image_url", "image_url": {"url": url}}


def parsed_calls(messages: list[Json]) -> list[Json]:
    """Messages of a chat with the arguments of calls decoded, so that spelling does not count."""
    for message in messages:
        for call in message.get("tool_calls", []):
            call["function"]["arguments"] = json.loads(call["function"]["arguments"])
    return messages
