"""What a client is to be told, and how it is written so that no name or address can break it.

Owns the facts that a snippet is made of, the shape of an answer, and the quoting of each language.
Knows no client: those are in the modules beside this one. A key is never made up: it is the one
that was given, a variable where the client can read one, or words that say what belongs there.
"""

import json
import shlex
from collections.abc import Callable, Mapping
from typing import Literal

import msgspec

KEY_PLACEHOLDER = "PUT-YOUR-CORTEXD-KEY-HERE"
MODEL_PLACEHOLDER = "PUT-A-MODEL-HERE"

Language = Literal["sh", "json", "toml", "yaml", "python", "env"]


class Wanted(msgspec.Struct, frozen=True):
    """What a snippet is to say.

    `root`: the gateway's address without `/v1`. `key`: written out where it is not None, else read
    from the variable `key_variable` where the client can. `context`, `output`: the model's limits
    in tokens, as far as they are known.
    """

    root: str
    key: str | None
    key_variable: str
    model: str
    context: int | None = None
    output: int | None = None

    @property
    def v1(self) -> str:
        """The base URL for clients of OpenAI's kind, which append `/chat/completions`."""
        return f"{self.root}/v1"

    @property
    def written_key(self) -> str:
        """For a file in which no variable is read."""
        return KEY_PLACEHOLDER if self.key is None else self.key


class Snippet(msgspec.Struct, frozen=True):
    """Text to be copied; `where` says whither."""

    where: str
    language: Language
    text: str


class Client(msgspec.Struct, frozen=True):
    """A program that can be pointed at a gateway.

    `what` is one line for the list; `notes` are what has to be known beside the snippets.
    """

    name: str
    what: str
    snippets: Callable[[Wanted], tuple[Snippet, ...]]
    notes: tuple[str, ...] = ()


def indented_json(value: object) -> str:
    """JSON as people write it; a name with any letters stays readable."""
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def quoted(text: str) -> str:
    """A text in double quotes: a string in JSON, YAML, TOML and Python alike."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def shell_key(wanted: Wanted) -> str:
    """The key as a word for a shell, which complains where the variable is not set."""
    if wanted.key is not None:
        return shlex.quote(wanted.key)
    return f'"${{{wanted.key_variable}:?put your cortexd key into it}}"'


def exports(variables: Mapping[str, str]) -> str:
    """Lines for a shell; the values are words already."""
    return "".join(f"export {name}={word}\n" for name, word in variables.items())


def python_key(wanted: Wanted) -> tuple[str, str]:
    """What a Python program imports for its key, and the key as an expression."""
    if wanted.key is not None:
        return "", quoted(wanted.key)
    return "import os\n\n", f'os.environ["{wanted.key_variable}"]'


def known(**limits: int | None) -> dict[str, int]:
    """The limits that are known."""
    return {name: tokens for name, tokens in limits.items() if tokens is not None}
