"""Asks a gateway one question after the other, each over a connection of its own, from 8 threads.

    python3 knocking.py HOST PORT KEY MODEL

Prints a line once every thread has asked, goes on until standard input ends, and prints, as JSON,
how often each thing happened ("answered", or the name of what went wrong) and the "tokens" that all
answers together cost. Nothing but the standard library: it runs on the machine that is tested.
"""

import http.client
import json
import sys
import threading
from collections import Counter

THREADS = 8


def main(host: str, port: int, key: str, model: str) -> None:
    """Ask until told to stop."""
    stop, started = threading.Event(), threading.Barrier(THREADS + 1)
    seen: list[tuple[str, int]] = []
    question = json.dumps(
        {"model": model, "max_tokens": 2, "messages": [{"role": "user", "content": "hi"}]}
    )

    def knock() -> None:
        seen.append(ask(host, port, key, question))
        started.wait()
        while not stop.is_set():
            seen.append(ask(host, port, key, question))

    threads = [threading.Thread(target=knock) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    started.wait()
    sys.stdout.write("knocking\n")
    sys.stdout.flush()
    sys.stdin.read()
    stop.set()
    for thread in threads:
        thread.join()
    told = {**Counter(what for what, _ in seen), "tokens": sum(tokens for _, tokens in seen)}
    sys.stdout.write(json.dumps(told) + "\n")


def ask(host: str, port: int, key: str, question: str) -> tuple[str, int]:
    """One question; what became of it, and the tokens that it cost."""
    connection = http.client.HTTPConnection(host, port, timeout=30)
    try:
        connection.request(
            "POST", "/v1/chat/completions", question, {"Authorization": f"Bearer {key}"}
        )
        answer = connection.getresponse()
        body = answer.read()
    except (OSError, http.client.HTTPException) as error:
        return type(error).__name__, 0
    finally:
        connection.close()
    if answer.status != 200:
        return str(answer.status), 0
    return "answered", json.loads(body)["usage"]["total_tokens"]


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4])
