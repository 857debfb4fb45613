"""What the official anthropic package makes of given answers, as a program of its own.

    PYTHONPATH=.sdk/anthropic2 python tests/dialects/anthropic_sdk_script.py < answers.json

Reads a JSON object: name -> status, headers and body (latin-1 text) of an answer. Serves them on
loopback, asks for each with the package, and prints one JSON line for each: its name and the facts
that a user's program meets. It judges nothing, and imports nothing of the project.
"""

import collections
import http.server
import json
import sys
import threading
from typing import ClassVar

import anthropic  # type: ignore[import-not-found]  # lives in a folder of its own, see Makefile

ASKED = {"model": "m", "max_tokens": 20, "messages": [{"role": "user", "content": "hi"}]}
Facts = dict[str, object]


class Answers(http.server.BaseHTTPRequestHandler):
    """Serves the answer that the first folder of the path names, and counts how often."""

    answers: ClassVar[dict[str, dict[str, object]]] = {}
    asked: ClassVar[collections.Counter[str]] = collections.Counter()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        name = self.path.split("/")[1]
        self.asked[name] += 1
        answer = self.answers[name]
        body = str(answer["body"]).encode("latin-1")
        self.send_response(int(str(answer["status"])))
        for header, value in dict(answer["headers"]).items():  # type: ignore[call-overload]
            self.send_header(header, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: the output is for facts."""


def plain(client: anthropic.Anthropic) -> Facts:
    return dict(client.messages.create(**ASKED).model_dump())


def helped(client: anthropic.Anthropic) -> Facts:
    """The stream as the package's own helper puts it together."""
    with client.messages.stream(**ASKED) as stream:
        return dict(stream.get_final_message().model_dump())


def raw(client: anthropic.Anthropic) -> Facts:
    return {"events": [event.type for event in client.messages.create(**ASKED, stream=True)]}


def counted(client: anthropic.Anthropic) -> Facts:
    asked = {name: ASKED[name] for name in ("model", "messages")}
    return {"input_tokens": client.messages.count_tokens(**asked).input_tokens}


WAYS = {"plain": plain, "helped": helped, "raw": raw, "counted": counted}


def met(name: str, url: str) -> Facts:
    """Ask for one answer in the way that the last word of its name says."""
    client = anthropic.Anthropic(base_url=f"{url}/{name}", api_key="sk-none", timeout=20)
    facts: Facts = {"scenario": name, "raised": None}
    try:
        facts |= WAYS[name.split("-")[-1]](client)
    except anthropic.APIStatusError as error:
        details = error.body if isinstance(error.body, dict) else {}
        facts |= {
            "raised": type(error).__name__,
            "status_code": error.status_code,
            "request_id": error.request_id,
            "type": getattr(error, "type", None),
            "error_code": getattr(error, "error_code", None),
            "message": details.get("error", {}).get("message"),
        }
    return facts | {"requests": Answers.asked[name], "version": anthropic.__version__}


def main() -> None:
    Answers.answers = json.load(sys.stdin)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for name in Answers.answers:
        facts = met(name, f"http://127.0.0.1:{server.server_port}")
        sys.stdout.write(json.dumps(facts, default=str) + "\n")


if __name__ == "__main__":
    main()
