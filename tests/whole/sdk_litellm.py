"""What a user does with litellm as a client, as a program of its own (see sdk_world.py).

    PYTHONPATH=.sdk/litellm python tests/whole/sdk_litellm.py http://127.0.0.1:31313

It judges nothing, and imports nothing of the project. aider is such a program.
"""

import json
import os
import sys
import time
from collections.abc import Callable

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else it fetches one from the network

import litellm  # type: ignore[import-not-found]  # lives in a folder of its own, see Makefile

MESSAGES = [{"role": "user", "content": "hi"}]
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
BREAKS = ("dying", "resetting", "ending", "erring", "garbled", "cut", "stalling")
Facts = dict[str, object]
URL = sys.argv[1]


def ask(key: str, model: str = "small", **fields: object) -> litellm.ModelResponse:
    """One chat as litellm asks by default, to a server of OpenAI's kind."""
    asked = {"messages": MESSAGES, "max_tokens": 20, "timeout": 20, **fields}
    return litellm.completion(
        model=f"openai/sim/{model}", api_base=f"{URL}/v1", api_key=f"sk-{key}", **asked
    )


def answered(answer: litellm.ModelResponse) -> Facts:
    choice = answer.choices[0]
    return {
        "text": choice.message.content,
        "finish_reason": choice.finish_reason,
        "total_tokens": answer.usage.total_tokens,
        "calls": [
            [call.function.name, call.function.arguments]
            for call in choice.message.tool_calls or ()
        ],
    }


def streamed_facts(stream: litellm.CustomStreamWrapper) -> Facts:
    """Everything a stream brings, read to its end."""
    chunks = list(stream)
    whole = litellm.stream_chunk_builder(chunks, messages=MESSAGES)
    return answered(whole)


def plain() -> Facts:
    return answered(ask("plain"))


def streamed() -> Facts:
    return streamed_facts(ask("plain", stream=True))


def tools() -> Facts:
    return answered(ask("tools", "tools", tools=[TOOL]))


def tools_streamed() -> Facts:
    return streamed_facts(ask("tools", "tools-streamed", tools=[TOOL], stream=True))


def embedded() -> Facts:
    reached = {"api_base": f"{URL}/v1", "api_key": "sk-vectors", "input": ["one", "two words"]}
    return {
        model: [
            each["embedding"]
            for each in litellm.embedding(model=f"openai/sim/{model}", **reached).data
        ]
        for model in ("vectors", "vectors-as-numbers")
    }


def over_a_balance() -> Facts:
    ask("balance")
    return {}


def over_a_long_window() -> Facts:
    ask("long")
    ask("long")
    return {}


def over_a_short_window() -> Facts:
    ask("short")
    ask("short")
    return {}


def wrong_key() -> Facts:
    ask("of-nobody")
    return {}


def unknown_model() -> Facts:
    ask("unknown", "absent")
    return {}


def neuron_falls_silent() -> Facts:
    ask("silent", "silent")
    return {}


def hung_up() -> Facts:
    stream = ask("leaving", "endless", stream=True, max_tokens=500)
    seen = 0
    for chunk in stream:
        seen += any(choice.delta.content for choice in chunk.choices)
        if seen == 7:
            break
    stream.completion_stream.close()
    return {"seen": seen}


def broken_stream(name: str) -> Callable[[], Facts]:
    """The scenario of one way to break."""

    def scenario() -> Facts:
        return streamed_facts(ask(name, name, stream=True))

    scenario.__name__ = f"broken_{name}"
    return scenario


SCENARIOS: tuple[Callable[[], Facts], ...] = (
    hung_up,
    plain,
    streamed,
    tools,
    tools_streamed,
    embedded,
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
    litellm.suppress_debug_info = True
    for scenario in SCENARIOS:
        facts: Facts = {"scenario": scenario.__name__, "raised": None}
        began = time.monotonic()
        try:
            facts |= scenario()
        except Exception as error:
            facts["raised"] = type(error).__name__
            facts["message"] = str(error)
            facts["status_code"] = getattr(error, "status_code", None)
        facts["seconds"] = time.monotonic() - began
        sys.stdout.write(json.dumps(facts) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
