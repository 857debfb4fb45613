"""How many tokens a model that only reads can make of a text: embedders and rerankers.

Owns their worst normaliser. Refuses to know what is done with the number. Theory: these models
normalise more than those that chat (NFKC, lower case, accents apart), which makes some characters
many times longer; each piece they make of the result covers at least one byte of it.
"""

from __future__ import annotations

import unicodedata

NORMALISED_AT_ONCE = 128
"""Characters per call of `unicodedata`, whose reordering is quadratic in a run of accents."""

ENDS = 4
"""Marks that a tokenizer puts around a text, and between two that are read together."""


def read_bytes(text: str) -> int:
    """Bound the tokens of one text, with the marks at its ends."""
    if text.isascii():
        return len(text) + ENDS
    size = 0
    for start in range(0, len(text), NORMALISED_AT_ONCE):
        piece = text[start : start + NORMALISED_AT_ONCE]
        apart = unicodedata.normalize("NFKD", piece)
        forms = (piece, apart, apart.lower(), unicodedata.normalize("NFKC", piece))
        size += max(len(form.encode("utf-8", "surrogatepass")) for form in forms)
    return size + ENDS
