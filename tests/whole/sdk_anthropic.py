"""What a user does with Anthropic's package, as a program of its own (see sdk_world.py).

    PYTHONPATH=.sdk/anthropic2 python tests/whole/sdk_anthropic.py http://127.0.0.1:31313

It judges nothing, and imports nothing of the project. 0.x and 2.x are told apart by nothing here.
"""

import json
import sys
import time
from collections.abc import Callable

import anthropic  # type: ignore[import-not-found]  # lives in a folder of its own, see Makefile

MESSAGES = [{"role": "user", "content": "hi"}]
CITY = {"type": "object", "properties": {"city": {"type": "string"}}}
TOOLS = [{"name": "weather", "input_schema": CITY}]
BREAKS = ("dying", "resetting", "ending", "erring", "garbled", "cut", "stalling")
Facts = dict[str, object]
CLIENT = anthropic.Anthropic(base_url=sys.argv[1], api_key="sk-none", timeout=20)


def client(key: str) -> anthropic.Anthropic:
    """A client with this key; connections are shared, retries are the package's own."""
    return CLIENT.with_options(api_key=f"sk-{key}")


def asked(model: str = "small", **fields: object) -> Facts:
    """What is asked for."""
    return {"model": f"sim/{model}", "messages": MESSAGES, "max_tokens": 20, **fields}


def ask(key: str, model: str = "small", **fields: object) -> anthropic.types.Message:
    """One plain answer."""
    return client(key).messages.create(**asked(model, **fields))


def answered(message: anthropic.types.Message) -> Facts:
    usage = message.usage
    return {
        "text": "".join(block.text for block in message.content if block.type == "text"),
        "finish_reason": message.stop_reason,
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "model": message.model,
        "calls": [
            [block.name, json.dumps(block.input)]
            for block in message.content
            if block.type == "tool_use"
        ],
    }


def read_raw(key: str, model: str, **fields: object) -> Facts:
    """Events one by one, as most programs read them: no helper checks that a stream was whole."""
    stream = client(key).messages.create(**asked(model, **fields), stream=True)
    return {"events": [event.type for event in stream]}


def read_helped(key: str, model: str, **fields: object) -> Facts:
    """The helper, which puts the message together."""
    with client(key).messages.stream(**asked(model, **fields)) as stream:
        text = "".join(stream.text_stream)
        message = stream.get_final_message()
    return {**answered(message), "text": text}


def plain() -> Facts:
    return answered(ask("plain"))


def streamed() -> Facts:
    return {**read_raw("plain", "small"), **read_helped("plain", "small")}


def tools() -> Facts:
    return answered(ask("tools", "tools", tools=TOOLS))


def tools_streamed() -> Facts:
    return read_helped("tools", "tools-streamed", tools=TOOLS)


def counted() -> Facts:
    model = {"model": "sim/small", "messages": MESSAGES}
    return {"input_tokens": client("plain").messages.count_tokens(**model).input_tokens}


def models() -> Facts:
    found = client("plain").models
    return {
        "listed": sorted(model.id for model in found.list()),
        "retrieved": found.retrieve("sim/small").id,
    }


def over_a_balance() -> Facts:
    ask("balance")
    return {}


def over_a_balance_streamed() -> Facts:
    return read_helped("balance-streamed", "small")


def too_long() -> Facts:
    ask("unknown", messages=[{"role": "user", "content": "x" * 5_000_000}])
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
    endless = asked("endless", max_tokens=500)
    seen = 0
    with client("leaving").messages.create(**endless, stream=True) as stream:
        for event in stream:
            seen += event.type == "content_block_delta"
            if seen == 7:
                break
    return {"seen": seen}


def broken_stream(name: str) -> Callable[[], Facts]:
    """The scenario of one way to break."""

    def scenario() -> Facts:
        return read_raw(name, name)

    scenario.__name__ = f"broken_{name}"
    return scenario


SCENARIOS: tuple[Callable[[], Facts], ...] = (
    hung_up,
    plain,
    streamed,
    tools,
    tools_streamed,
    counted,
    models,
    over_a_balance,
    over_a_balance_streamed,
    too_long,
    over_a_long_window,
    over_a_short_window,
    wrong_key,
    unknown_model,
    neuron_falls_silent,
    *map(broken_stream, BREAKS),
)


def main() -> None:
    """Run all scenarios; an exception of the package is a fact like any other."""
    for scenario in SCENARIOS:
        facts: Facts = {"scenario": scenario.__name__, "raised": None}
        began = time.monotonic()
        try:
            facts |= scenario()
        except anthropic.AnthropicError as error:
            facts["raised"] = type(error).__name__
            for name in ("status_code", "type", "error_code", "request_id", "message"):
                facts[name] = getattr(error, name, None)
        facts["seconds"] = time.monotonic() - began
        sys.stdout.write(json.dumps(facts) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
