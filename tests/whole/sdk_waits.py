"""What a user's program sees of a model that has to be loaded first, with the official package.

    PYTHONPATH=.sdk/openai3 python tests/whole/sdk_waits.py http://127.0.0.1:31313 org/model

Asks twice at the same time, both streamed, with a timeout that is shorter than the load: once as
programs do, and once for the lines as they come. Prints one JSON object with the facts; judges
nothing, and imports nothing of the project.
"""

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import openai  # type: ignore[import-not-found]  # lives in a folder of its own, see Makefile

TIMEOUT_SECONDS = 1.5
Facts = dict[str, object]


def streamed(client: openai.OpenAI, asked: Facts) -> Facts:
    stream = client.chat.completions.create(**asked)
    began = time.monotonic()
    texts, reasons, first_text = 0, [], 0.0
    for chunk in stream:
        for choice in chunk.choices:
            if choice.delta.content:
                texts += 1
                first_text = first_text or time.monotonic() - began
            if choice.finish_reason:
                reasons.append(choice.finish_reason)
    return {
        "seconds_from_head_to_text": first_text,
        "texts": texts,
        "finish_reasons": reasons,
    }


def heartbeats(client: openai.OpenAI, asked: Facts) -> Facts:
    with client.chat.completions.with_streaming_response.create(**asked) as answer:
        lines = list(answer.iter_lines())
    return {"heartbeats": sum(line.startswith(":") for line in lines)}


def main() -> None:
    """An exception of the package ends this with a traceback: there should be none."""
    url, model = sys.argv[1:]
    client = openai.OpenAI(
        base_url=f"{url}/v1", api_key="sk-cap", timeout=TIMEOUT_SECONDS, max_retries=0
    )
    messages = [{"role": "user", "content": "hi"}]
    asked = {"model": model, "messages": messages, "max_tokens": 20, "stream": True}
    with ThreadPoolExecutor(2) as threads:
        both = [threads.submit(each, client, asked) for each in (streamed, heartbeats)]
        facts = {"timeout_seconds": TIMEOUT_SECONDS} | both[0].result() | both[1].result()
    sys.stdout.write(json.dumps(facts) + "\n")


if __name__ == "__main__":
    main()
