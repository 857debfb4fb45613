"""What a user does with the official anthropic package, as a program of its own.

    PYTHONPATH=.sdk/anthropic2 python tests/whole/anthropic_script.py http://127.0.0.1:31313

Runs every scenario once and prints one JSON line for each: its name and the facts that it met. It
judges nothing, and imports nothing of the project. The key of a scenario is `sk-` and its name.
"""

import json
import sys
from collections.abc import Callable

import anthropic  # type: ignore[import-not-found]  # lives in a folder of its own, see Makefile

ASKED = {
    "model": "sim/small",
    "max_tokens": 20,
    "messages": [{"role": "user", "content": "hi"}],
}
Facts = dict[str, object]


def message(client: anthropic.Anthropic) -> Facts:
    answer = client.messages.create(**ASKED, system="Be brief.")
    return {
        "text": answer.content[0].text,
        "stop_reason": answer.stop_reason,
        "tokens": answer.usage.input_tokens + answer.usage.output_tokens,
        "model": answer.model,
    }


def streamed(client: anthropic.Anthropic) -> Facts:
    with client.messages.stream(**ASKED) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    plain = client.messages.create(**ASKED)
    return {
        "text": text,
        "final": final.content[0].text,
        "plain": plain.content[0].text,
        "tokens": final.usage.input_tokens + final.usage.output_tokens,
    }


def counted(client: anthropic.Anthropic) -> Facts:
    asked = {name: ASKED[name] for name in ("model", "messages")}
    return {"tokens": client.messages.count_tokens(**asked).input_tokens}


def listed(client: anthropic.Anthropic) -> Facts:
    models = [model.id for model in client.models.list()]
    return {"models": sorted(models), "one": client.models.retrieve("sim/small").id}


def poor(client: anthropic.Anthropic) -> Facts:
    client.messages.create(**ASKED)
    return {}


def poor_streamed(client: anthropic.Anthropic) -> Facts:
    with client.messages.stream(**ASKED) as stream:
        return {"text": "".join(stream.text_stream)}


def stranger(client: anthropic.Anthropic) -> Facts:
    client.with_options(api_key="sk-of-nobody").messages.create(**ASKED)
    return {}


def absent(client: anthropic.Anthropic) -> Facts:
    client.messages.create(**{**ASKED, "model": "sim/absent"})
    return {}


def too_long(client: anthropic.Anthropic) -> Facts:
    client.messages.create(**{**ASKED, "messages": [{"role": "user", "content": "x" * 5_000_000}]})
    return {}


def dying(client: anthropic.Anthropic) -> Facts:
    with client.messages.stream(**{**ASKED, "model": "sim/dying"}) as stream:
        return {"text": "".join(stream.text_stream)}


SCENARIOS: tuple[Callable[[anthropic.Anthropic], Facts], ...] = (
    message,
    streamed,
    counted,
    listed,
    poor,
    poor_streamed,
    stranger,
    absent,
    too_long,
    dying,
)


def main() -> None:
    """Run all scenarios; an exception of the package is a fact like any other."""
    for scenario in SCENARIOS:
        key = f"sk-{scenario.__name__}"
        client = anthropic.Anthropic(base_url=sys.argv[1], api_key=key, timeout=20)
        facts: Facts = {"scenario": scenario.__name__, "raised": None}
        try:
            facts |= scenario(client)
        except anthropic.AnthropicError as error:
            facts["raised"] = type(error).__name__
            body = getattr(error, "body", None)
            facts["told"] = body.get("error") if isinstance(body, dict) else None
            for name in ("status_code", "request_id", "message"):
                facts[name] = getattr(error, name, None)
        sys.stdout.write(json.dumps(facts) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
