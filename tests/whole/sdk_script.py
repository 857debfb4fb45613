"""What a user does with the official openai package, as a program of its own (see sdk_world.py).

    PYTHONPATH=.sdk/openai3 python tests/whole/sdk_script.py http://127.0.0.1:31313

Runs every scenario once and prints one JSON line for each: its name and the facts that it met. It
judges nothing, and imports nothing of the project: the package under test brings its own versions
of what cortexd uses.
"""

import json
import sys
import time
from collections.abc import Callable

import openai  # type: ignore[import-not-found]  # lives in a folder of its own, see Makefile

MESSAGES = [{"role": "user", "content": "hi"}]
ASKED = {"model": "sim/small", "messages": MESSAGES, "max_tokens": 20}
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
BREAKS = ("dying", "resetting", "ending", "erring", "garbled", "cut", "stalling")
TEXTS = ["one", "two words"]
Facts = dict[str, object]


class User:
    """Somebody with the address of a gateway, and one key per scenario."""

    def __init__(self, url: str) -> None:
        self._client = openai.OpenAI(base_url=f"{url}/v1", api_key="sk-none", timeout=20)

    def client(self, key: str) -> openai.OpenAI:
        """A client with this key; connections are shared, retries are the package's own."""
        return self._client.with_options(api_key=key)


def plain(user: User) -> Facts:
    answer = user.client("sk-plain").chat.completions.create(**ASKED)
    return {
        "text": answer.choices[0].message.content,
        "finish_reason": answer.choices[0].finish_reason,
        "total_tokens": answer.usage.total_tokens,
        "model": answer.model,
    }


def streamed(user: User) -> Facts:
    return facts_of(user.client("sk-plain").chat.completions.create(**ASKED, stream=True))


def streamed_with_usage(user: User) -> Facts:
    options = {"include_usage": True}
    asked = {**ASKED, "stream": True, "stream_options": options}
    return facts_of(user.client("sk-plain").chat.completions.create(**asked))


def facts_of(stream: openai.Stream) -> Facts:
    """Everything a stream brings, read to its end."""
    chunks = list(stream)
    choices = [choice for chunk in chunks for choice in chunk.choices]
    finish_reasons = [choice.finish_reason for choice in choices if choice.finish_reason]
    return {
        "text": "".join(choice.delta.content or "" for choice in choices),
        "finish_reason": finish_reasons[0] if finish_reasons else None,
        "finish_reasons": finish_reasons,
        "chunks_without_choices": sum(not chunk.choices for chunk in chunks),
        "usages": [chunk.usage.total_tokens for chunk in chunks if chunk.usage is not None],
    }


def tools(user: User) -> Facts:
    asked = {**ASKED, "model": "sim/tools", "tools": [TOOL]}
    [choice] = user.client("sk-tools").chat.completions.create(**asked).choices
    calls = [[call.function.name, call.function.arguments] for call in choice.message.tool_calls]
    return {"finish_reason": choice.finish_reason, "calls": calls}


def tools_streamed(user: User) -> Facts:
    asked = {**ASKED, "model": "sim/tools-streamed", "tools": [TOOL], "stream": True}
    name = arguments = ""
    finish_reason = None
    for chunk in user.client("sk-tools").chat.completions.create(**asked):
        [choice] = chunk.choices
        finish_reason = choice.finish_reason or finish_reason
        for call in choice.delta.tool_calls or ():
            name += call.function.name or ""
            arguments += call.function.arguments or ""
    return {"finish_reason": finish_reason, "calls": [[name, arguments]]}


def embedded(user: User) -> Facts:
    client = user.client("sk-vectors")
    return {
        model: [
            each.embedding
            for each in client.embeddings.create(model=f"sim/{model}", input=TEXTS).data
        ]
        for model in ("vectors", "vectors-as-numbers")
    }


def models(user: User) -> Facts:
    client = user.client("sk-plain")
    return {
        "listed": sorted(model.id for model in client.models.list()),
        "retrieved": client.models.retrieve("sim/small").id,
    }


def over_a_balance(user: User) -> Facts:
    user.client("sk-balance").chat.completions.create(**ASKED)
    return {}


def over_a_long_window(user: User) -> Facts:
    client = user.client("sk-long")
    client.chat.completions.create(**ASKED)
    client.chat.completions.create(**ASKED)
    return {}


def over_a_short_window(user: User) -> Facts:
    client = user.client("sk-short")
    retries = []
    for _ in range(3):
        raw = client.chat.completions.with_raw_response.create(**ASKED)
        assert raw.parse().usage.total_tokens == 15
        retries.append(raw.retries_taken)
    return {"retries": retries}


def wrong_key(user: User) -> Facts:
    user.client("sk-of-nobody").chat.completions.create(**ASKED)
    return {}


def unknown_model(user: User) -> Facts:
    user.client("sk-unknown").chat.completions.create(**{**ASKED, "model": "sim/absent"})
    return {}


def neuron_falls_silent(user: User) -> Facts:
    user.client("sk-silent").chat.completions.create(**{**ASKED, "model": "sim/silent"})
    return {}


def hung_up(user: User) -> Facts:
    asked = {**ASKED, "model": "sim/endless", "stream": True, "max_tokens": 500}
    stream = user.client("sk-leaving").chat.completions.create(**asked)
    seen = 0
    for chunk in stream:
        seen += any(choice.delta.content for choice in chunk.choices)
        if seen == 7:
            break
    stream.close()
    return {"seen": seen}


def broken_stream(name: str) -> Callable[[User], Facts]:
    """The scenario of one way to break."""

    def scenario(user: User) -> Facts:
        asked = {**ASKED, "model": f"sim/{name}", "stream": True}
        return facts_of(user.client(f"sk-{name}").chat.completions.create(**asked))

    scenario.__name__ = f"broken_{name}"
    return scenario


SCENARIOS: tuple[Callable[[User], Facts], ...] = (
    hung_up,
    plain,
    streamed,
    streamed_with_usage,
    tools,
    tools_streamed,
    embedded,
    models,
    over_a_balance,
    over_a_long_window,
    over_a_short_window,
    wrong_key,
    unknown_model,
    neuron_falls_silent,
    *map(broken_stream, BREAKS),
)


def main() -> None:
    """Run all scenarios; an exception of the package is a fact like any other."""
    user = User(sys.argv[1])
    for scenario in SCENARIOS:
        facts: Facts = {"scenario": scenario.__name__, "raised": None}
        began = time.monotonic()
        try:
            facts |= scenario(user)
        except openai.OpenAIError as error:
            facts["raised"] = type(error).__name__
            for name in ("status_code", "code", "type", "param", "request_id", "message"):
                facts[name] = getattr(error, name, None)
        facts["seconds"] = time.monotonic() - began
        sys.stdout.write(json.dumps(facts) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
