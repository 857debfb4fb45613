"""The bound on a prompt against vocabularies that models are served with: it holds for each.

The tokenizers run in a process of their own, as what they need must not meet what cortexd needs.
"""

import base64
import json
import os
import subprocess
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cortexd.dialects.chat import Chat
from cortexd.dialects.completions import Completions
from cortexd.dialects.embeddings import Embeddings
from cortexd.dialects.messages import Messages
from cortexd.dialects.refusals import Refusal
from cortexd.dialects.rerank import Rerank
from cortexd.dialects.responses import Responses
from cortexd.dialects.surface import Document, Surface, Target
from cortexd.dialects.upper_bound import ModelLimits
from tests.support.anthropic_requests import OBJECTS, REQUESTS, Json

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / ".sdk/tokenizers"
SCRIPT = ROOT / "tests/dialects/tokenizers_script.py"
LIMITS = ModelLimits(context_min=None, context_max=None, output=None)
BEGINNING_TOKENS = 1
"""What begins a prompt, and is learned as part of the model's template."""


class Tokenizers:
    """The running program."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def count(self, texts: list[str]) -> dict[str, list[int]]:
        """The name of a vocabulary -> the tokens of each text."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(texts) + "\n")
        self._process.stdin.flush()
        answer: dict[str, list[int]] = json.loads(self._process.stdout.readline())
        return answer


@pytest.fixture(scope="module")
def tokenizers() -> Iterator[Tokenizers]:
    """Seven vocabularies of four families."""
    if not (PACKAGE / ".ready").exists():
        fetch = f"make {PACKAGE.relative_to(ROOT)}/.ready"
        pytest.skip(f"NO BOUND WAS HELD AGAINST A REAL TOKENIZER; fetch them with: {fetch}")
    process = subprocess.Popen(
        [sys.executable, str(SCRIPT)],
        env={**os.environ, "PYTHONPATH": str(PACKAGE)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    yield Tokenizers(process)
    process.communicate(timeout=20)


SWELLING = [
    letter
    for letter in map(chr, range(0x110000))
    if not unicodedata.is_normalized("NFC", letter)
    and len(unicodedata.normalize("NFC", letter).encode()) > len(letter.encode())
]
"""Characters that normalising to NFC makes longer."""

CODE = [
    path.read_text() for path in sorted((ROOT / "cortexd").rglob("*.py")) if path.stat().st_size
]


def code(at: tuple[int, int, int]) -> str:
    """A stretch of a source file."""
    file, start, size = at
    text = CODE[file % len(CODE)]
    return text[start % len(text) :][:size]


LETTERS = st.characters(exclude_categories=["Cs"])
TEXTS = st.one_of(
    st.text(LETTERS, max_size=200),
    st.text(st.sampled_from(SWELLING), min_size=1, max_size=50),
    st.text(st.characters(categories=["Mn", "Me", "Mc", "Cf", "Co", "Zs"]), max_size=50),
    st.text(st.characters(min_codepoint=0x10000), max_size=50),
    st.text(st.sampled_from("ﷺ﷽⁂𝅗𝅥𓀀 \u200d\ufe0f\u00a0\u3000"), max_size=50),
    st.text(st.characters(max_codepoint=0x1F), max_size=50),
    st.text(st.sampled_from("0123456789abcdef"), max_size=300),
    st.text(st.sampled_from("\"\\{}[]:, \n\t<>&'"), max_size=300),
    st.binary(max_size=300).map(lambda data: base64.b64encode(data).decode()),
    st.tuples(st.integers(0), st.integers(0), st.integers(0, 2000)).map(code),
    st.builds(lambda letter, times: letter * times, LETTERS, st.integers(0, 300)),
    st.sampled_from(["<|im_start|>", "<s>", "[INST]", "</s>", "<unk>", "<0x0A>"]).map(
        lambda mark: mark * 5
    ),
)


def bound_of(surface: Surface, body: Json) -> int:
    """The most prompt tokens that cortexd says a request can have, without any template."""
    posted = Document(json.dumps(body, ensure_ascii=False).encode())
    request = surface.understand(posted, forward_fields=frozenset())
    assert not isinstance(request, Refusal), request
    bounded = request.bound(LIMITS, capped=False)
    assert not isinstance(bounded, Refusal), bounded
    return bounded.prompt_tokens


def chat_ml(messages: list[Json], tools: list[Json]) -> str:
    """A prompt as the templates of many models write it, at their longest: tools indented, and
    safe for HTML.
    """
    said = [f"<|im_start|>system\n{as_templates_write(tools)}<|im_end|>\n"] if tools else []
    for message in messages:
        calls = "".join(
            f"<tool_call>\n{as_templates_write(call['function'])}\n</tool_call>"
            for call in message.get("tool_calls", [])
        )
        text = message.get("content") or ""
        said.append(f"<|im_start|>{message['role']}\n{text}{calls}<|im_end|>\n")
    return "".join(said) + "<|im_start|>assistant\n"


def as_templates_write(value: object) -> str:
    """JSON as `tojson` writes it."""
    written = json.dumps(value, indent=4)
    for letter in "<>&'":
        written = written.replace(letter, f"\\u{ord(letter):04x}")
    return written


def marked(messages: list[Json]) -> str:
    """A prompt as Mistral's templates write it."""
    return "".join(f"[INST] {message.get('content') or ''} [/INST]" for message in messages)


def hold(tokenizers: Tokenizers, texts: list[str], bounds: list[int]) -> None:
    """Fail for a text of which a vocabulary makes more tokens than its bound."""
    for name, counts in tokenizers.count(texts).items():
        for text, count, bound in zip(texts, counts, bounds, strict=True):
            assert count <= bound + BEGINNING_TOKENS, f"{name}: {count} > {bound} for {text!r}"


def test_characters_that_swell_are_among_those_that_are_tried() -> None:
    """They are why bytes alone are no bound."""
    assert len(SWELLING) > 50
    assert any(
        len(unicodedata.normalize("NFC", letter).encode()) == 3 * len(letter.encode())
        for letter in SWELLING
    )


def test_characters_that_swell_have_no_more_tokens_than_their_bound(
    tokenizers: Tokenizers,
) -> None:
    """Some of them come to more tokens than they have bytes before they are normalised."""
    texts = [letter * 100 for letter in SWELLING]
    counts = tokenizers.count(texts)
    assert any(
        count > len(text.encode())
        for counted in counts.values()
        for text, count in zip(texts, counted, strict=True)
    )
    bounds = [bound_of(Completions(), {"model": "m", "prompt": text}) for text in texts]
    hold(tokenizers, texts, bounds)
    chats: list[list[Json]] = [[{"role": "user", "content": text}] for text in texts]
    bounds = [bound_of(Chat(), {"model": "m", "messages": chat}) for chat in chats]
    hold(tokenizers, [chat_ml(chat, []) for chat in chats], bounds)


@given(texts=st.lists(TEXTS, min_size=1, max_size=20))
@settings(max_examples=60)
def test_a_text_has_no_more_tokens_than_its_bound(tokenizers: Tokenizers, texts: list[str]) -> None:
    chats: list[list[Json]] = [[{"role": "user", "content": text}] for text in texts]
    bounds = [bound_of(Chat(), {"model": "m", "messages": chat}) for chat in chats]
    hold(tokenizers, [chat_ml(chat, []) for chat in chats], bounds)
    hold(tokenizers, [marked(chat) for chat in chats], bounds)
    bare = [bound_of(Completions(), {"model": "m", "prompt": text}) for text in texts]
    hold(tokenizers, texts, bare)
    items = [bound_of(Responses(), {"model": "m", "input": text}) for text in texts]
    hold(tokenizers, [chat_ml(chat, []) for chat in chats], items)


@given(texts=st.lists(TEXTS.filter(bool), min_size=1, max_size=20))
@settings(max_examples=30)
def test_a_list_of_texts_has_no_more_tokens_than_its_bound(
    tokenizers: Tokenizers, texts: list[str]
) -> None:
    """Each is a prompt of its own, which a token of its own begins."""
    together = bound_of(Embeddings(), {"model": "m", "input": texts})
    pairs = bound_of(Rerank(), {"model": "m", "query": texts[0], "documents": texts})
    for name, counts in tokenizers.count(texts).items():
        assert sum(counts) <= together + len(texts) * BEGINNING_TOKENS, name
        both = sum(counts) + counts[0] * len(texts)
        assert both <= pairs + len(texts) * BEGINNING_TOKENS, name


@given(
    tools=st.lists(
        st.builds(
            lambda name, text, schema: {
                "type": "function",
                "function": {"name": name, "description": text, "parameters": schema},
            },
            st.text("abcdefgh_", min_size=1, max_size=12),
            TEXTS,
            OBJECTS,
        ),
        min_size=1,
        max_size=5,
    )
)
@settings(max_examples=60)
def test_tools_have_no_more_tokens_than_their_bound(
    tokenizers: Tokenizers, tools: list[Json]
) -> None:
    body: dict[str, Any] = {
        "model": "m",
        "messages": [{"role": "user", "content": ""}],
        "tools": tools,
    }
    hold(tokenizers, [chat_ml(body["messages"], tools)], [bound_of(Chat(), body)])


@given(body=REQUESTS, text=TEXTS)
@settings(max_examples=100)
def test_a_message_has_no_more_tokens_than_the_bound_of_its_chat(
    tokenizers: Tokenizers, body: Json, text: str
) -> None:
    turns = [*body["messages"], {"role": "user", "content": text}]
    request = Messages().understand(
        Document(json.dumps({**body, "messages": turns}).encode()), forward_fields=frozenset()
    )
    assert not isinstance(request, Refusal)
    bounded = request.bound(LIMITS, capped=False)
    assert not isinstance(bounded, Refusal)
    chat = json.loads(request.write(LIMITS, Target("m", 1)).body)
    for message in chat["messages"]:
        if isinstance(message["content"], list):
            texts = [part["text"] for part in message["content"] if part["type"] == "text"]
            message["content"] = "\n".join(texts)
    rendered = chat_ml(chat["messages"], chat.get("tools", []))
    hold(tokenizers, [rendered], [bounded.prompt_tokens])


def one_each(turns: list[Json]) -> list[Json]:
    """Every block as a message of its own, as no engine does worse."""
    said: list[Json] = []
    for turn in turns:
        content = turn["content"]
        blocks = [{"text": content}] if isinstance(content, str) else content
        inner = [
            each
            for block in blocks
            if isinstance(block.get("content"), list)
            for each in block["content"]
        ]
        for each in [*blocks, *inner]:
            texts = (each.get(name) for name in ("text", "thinking", "content"))
            text = "".join(text for text in texts if isinstance(text, str))
            function = {"name": each.get("name"), "arguments": each.get("input")}
            calls = [{"function": function}]
            said.append(
                {
                    "role": turn["role"],
                    "content": text,
                    "tool_calls": calls if "input" in each else [],
                }
            )
    return said


@given(body=REQUESTS, text=TEXTS)
@settings(max_examples=100)
def test_a_message_that_a_neuron_translates_has_no_more_tokens_than_its_bound(
    tokenizers: Tokenizers, body: Json, text: str
) -> None:
    system = body.pop("system", "")
    turns = [*body["messages"], {"role": "user", "content": text}]
    request = Messages().understand(
        Document(json.dumps({**body, "system": system, "messages": turns}).encode()),
        forward_fields=frozenset(),
    )
    assert not isinstance(request, Refusal)
    limits = msgspec.structs.replace(LIMITS, native_messages=True)
    bounded = request.bound(limits, capped=False)
    assert not isinstance(bounded, Refusal)
    tools = [{"function": tool} for tool in body.get("tools", [])]
    rendered = chat_ml(one_each([{"role": "system", "content": system}, *turns]), tools)
    hold(tokenizers, [rendered], [bounded.prompt_tokens])
