"""Starts a built cortexd.pyz as its demo, sends one real chat request through it, and stops it.

Run by CI after the build: ``smoke.py dist/cortexd.pyz``. The file runs with an empty environment
in an empty directory, as a service would. Exit code 0 only when the request was answered, paid for,
and the daemon ended with 0 after SIGTERM. Uses nothing but the standard library.
"""

import json
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from threading import Timer
from typing import IO, cast
from urllib.request import Request, urlopen

#: Long enough for a loaded machine; reaching it is a failure.
DEADLINE_SECONDS = 60


def main(argv: list[str]) -> int:
    """Run the built file named in ``argv``."""
    built = Path(argv[0]).resolve()
    with tempfile.TemporaryDirectory() as empty:
        daemon = start(built, empty)
        deadline = Timer(DEADLINE_SECONDS, daemon.kill)
        deadline.start()
        try:
            exchange(*told_by(cast("IO[str]", daemon.stdout)))
            daemon.send_signal(signal.SIGTERM)
            daemon.communicate()
        finally:
            deadline.cancel()
            daemon.kill()
            daemon.wait()
        left = sorted(path.name for path in Path(empty).iterdir())
    if daemon.returncode != 0 or left:
        print(f"smoke: exit code {daemon.returncode}, left behind {left}", file=sys.stderr)
        return 1
    print(f"smoke: {built.name} answered, charged and stopped cleanly")
    return 0


def start(built: Path, directory: str) -> subprocess.Popen[str]:
    """The demo on free ports, its standard output in our hands."""
    command = [str(built), "demo", "--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"]
    return subprocess.Popen(
        command, cwd=directory, env={}, stdout=subprocess.PIPE, stderr=None, text=True
    )


def told_by(output: IO[str]) -> tuple[str, str]:
    """The gateway's URL and an API key, from what the demo prints for its user."""
    url = key = ""
    for line in echoed(output):
        if found := re.match(r"listening gateway (\S+)", line):
            url = found[1]
        if found := re.search(r"\bsk-[\w-]+", line):
            key = key or found[0]
        if url and key:
            return url, key
    raise SystemExit("smoke: the demo ended without telling its address and a key")


def echoed(output: IO[str]) -> Iterator[str]:
    """The lines, shown in the log of the run as they come."""
    for line in output:
        print(f"  demo: {line}", end="")
        yield line


def exchange(url: str, key: str) -> None:
    """One chat request with the first model on offer; it must be answered and paid for."""
    model = ask(f"{url}/v1/models", key)["data"][0]["id"]
    question = {"model": model, "max_tokens": 8, "messages": [{"role": "user", "content": "hi"}]}
    answer = ask(f"{url}/v1/chat/completions", key, question)
    print(f"  answer: {answer}")
    text = answer["choices"][0]["message"]["content"]
    budget = ask(f"{url}/v1/budget", key)
    print(f"  budget: {budget}")
    if not text or budget["spent"] < answer["usage"]["total_tokens"]:
        raise SystemExit("smoke: no answer, or an answer that was not paid for")


def ask(url: str, key: str, body: object = None) -> dict:  # type: ignore[type-arg] # JSON as it is
    """GET, or POST where there is a body; the decoded answer. Raises on any status but 2xx."""
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    with urlopen(Request(url, data, headers), timeout=DEADLINE_SECONDS) as answer:
        return cast("dict", json.load(answer))  # type: ignore[type-arg]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
