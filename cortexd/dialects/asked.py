"""The one shape that every request becomes, whichever dialect it came in.

Owns the facts that admission, the bound and the relay need. Refuses to know HTTP, keys, budgets
and neurons.
"""

from __future__ import annotations

import msgspec


class PromptSize(msgspec.Struct, frozen=True):
    """How large a prompt can become, as far as its bytes tell.

    `text_bytes`: bytes that bound the tokens of the messages. `tools_bytes`: the same for tools
    and everything else that a chat template may write into the prompt. The other three count
    items whose tokens no number of bytes bounds; a video or an unknown part counts as a file.
    `media_bytes`: bytes of those items that `text_bytes` leaves out (base64, addresses).
    """

    text_bytes: int
    tools_bytes: int = 0
    images: int = 0
    audios: int = 0
    files: int = 0
    media_bytes: int = 0

    @property
    def has_media(self) -> bool:
        """Whether there is anything in it that bytes do not bound."""
        return self.images + self.audios + self.files > 0


class Asked(msgspec.Struct, frozen=True):
    """Work that a client asks for, checked.

    `model`: the name the client used. `include_usage`: the client wants the usage chunk of a
    stream. `choices`: answers in all (of several prompts together), at least 1.
    `output_requested`: the smallest output limit the client named, or None. `fields`: what may be
    forwarded, each value as the client wrote it; the model, the output limit and the stream
    options are not among them. `dropped`: names of fields that were taken out, fit for a log line.
    `prompts`: how many times a model reads, each time with what its template adds; 0 where nothing
    is read in tokens. `generates`: there is an output that a limit holds back; else all the work is
    in the prompts.
    `least_tokens`: what the longest prompt is sure to come to.
    `teaches`: what it costs beyond its bytes is the doing of the model's template alone, and not of
    words that the client gave the template.
    """

    model: str
    stream: bool
    include_usage: bool
    choices: int
    output_requested: int | None
    fields: dict[str, msgspec.Raw]
    dropped: tuple[str, ...]
    prompt: PromptSize
    prompts: int = 1
    generates: bool = True
    least_tokens: int = 0
    teaches: bool = True

    def forget(self) -> None:
        """Let go of the fields, and so of the body that they are pieces of."""
        self.fields.clear()
