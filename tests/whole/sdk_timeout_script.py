"""What an official package does when nothing comes in its time, as a program of its own.

    PYTHONPATH=.sdk/openai3 python tests/whole/sdk_timeout_script.py openai URL KEY

Asks once for a plain answer with a short read timeout and the package's own retries, and prints one
JSON line: what was raised in the end, and what it says. It judges nothing, and imports nothing of
the project.
"""

import importlib
import json
import sys

TIMEOUT_SECONDS = 0.4
ASKED = {
    "model": "sim/small",
    "max_tokens": 20,
    "messages": [{"role": "user", "content": "hi"}],
}


def ask(package: str, url: str, key: str) -> None:
    """One call as a user's program makes it."""
    module = importlib.import_module(package)
    if package == "openai":
        client = module.OpenAI(base_url=f"{url}/v1", api_key=key, timeout=TIMEOUT_SECONDS)
        client.chat.completions.create(**ASKED)
    else:
        client = module.Anthropic(base_url=url, api_key=key, timeout=TIMEOUT_SECONDS)
        client.messages.create(**ASKED)


def main() -> None:
    """Asks, and tells how it ended."""
    package, url, key = sys.argv[1:]
    facts: dict[str, object] = {"raised": None}
    try:
        ask(package, url, key)
    except Exception as error:
        facts = {"raised": type(error).__name__, "message": str(error)}
    sys.stdout.write(json.dumps(facts) + "\n")


if __name__ == "__main__":
    main()
