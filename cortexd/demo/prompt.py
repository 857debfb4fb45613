"""What a simulated neuron reads of a request: a checked question, honestly counted. Pure.

Counting: a token is a run of up to six letters, digits or underscores, or one other visible
character; each message adds four tokens of template and each prompt three. So a prompt in text
never has more tokens than its `messages` and `tools` have bytes of JSON. An image is 256
tokens, whatever its bytes.
"""

import re
from typing import TypeVar

import msgspec

from cortexd.demo.errors import NeuronError, inference_error

MESSAGE_TEMPLATE_TOKENS = 4
PROMPT_TEMPLATE_TOKENS = 3
IMAGE_TOKENS = 256

_Body = TypeVar("_Body")
_PIECE = re.compile(r"\w{1,6}|[^\w\s]")


class _StreamOptions(msgspec.Struct, frozen=True):
    include_usage: bool | None = None


class _ChatBody(msgspec.Struct, frozen=True):
    model: str
    messages: list[dict[str, msgspec.Raw]]
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    tools: msgspec.Raw = msgspec.Raw()
    seed: int | None = None
    chat_template_kwargs: dict[str, object] | None = None


class _EmbeddingsBody(msgspec.Struct, frozen=True):
    model: str
    input: str | list[str | int | list[int]]
    encoding_format: str = "float"
    dimensions: int | None = None


class _CompletionBody(msgspec.Struct, frozen=True):
    model: str
    prompt: str | list[str | int | list[int]]
    suffix: str | None = None
    n: int = 1
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    max_tokens: int | None = None
    seed: int | None = None


class _ResponseBody(msgspec.Struct, frozen=True):
    model: str
    input: str | list[dict[str, msgspec.Raw]]
    instructions: str | None = None
    tools: msgspec.Raw = msgspec.Raw()
    stream: bool | None = None
    max_output_tokens: int | None = None
    store: bool = True
    previous_response_id: str | None = None


class _MessageBody(msgspec.Struct, frozen=True):
    model: str
    messages: list[dict[str, msgspec.Raw]]
    max_tokens: int
    system: msgspec.Raw = msgspec.Raw()
    tools: msgspec.Raw = msgspec.Raw()
    stream: bool | None = None
    thinking: dict[str, object] | None = None


class ChatQuestion(msgspec.Struct, frozen=True):
    """A chat request, understood. `output_tokens_max` None: no limit was given."""

    model: str
    stream: bool
    include_usage: bool
    output_tokens_max: int | None
    prompt_tokens: int
    images: int
    thinking: bool
    seed: str


class EmbeddingsQuestion(msgspec.Struct, frozen=True):
    """An embeddings request, understood: one text per vector."""

    model: str
    texts: tuple[str, ...]
    prompt_tokens: int
    as_base64: bool
    dimensions: int | None


class CompletionQuestion(msgspec.Struct, frozen=True):
    """A completion request, understood: one question per answer."""

    model: str
    stream: bool
    include_usage: bool
    questions: tuple[ChatQuestion, ...]


def count_pieces(text: str) -> int:
    """Tokens of plain text, never more than it has characters."""
    return sum(1 for _ in _PIECE.finditer(text))


def understand_chat(body: bytes, content_type: str | None) -> ChatQuestion:
    """Raises NeuronError with the row that fits: 415, 400 or 422."""
    asked = decode(body, content_type, _ChatBody)
    if not asked.messages:
        raise NeuronError(inference_error("invalid_request_body", "messages must not be empty"))
    tokens, images = PROMPT_TEMPLATE_TOKENS, 0
    for message in asked.messages:
        message_tokens, message_images = _message_size(message)
        tokens += message_tokens
        images += message_images
    tokens += _raw_pieces(asked.tools)
    # As llama-server has it, the newer spelling wins when both are given.
    limit = asked.max_tokens if asked.max_completion_tokens is None else asked.max_completion_tokens
    return ChatQuestion(
        model=asked.model,
        stream=bool(asked.stream),
        include_usage=bool(asked.stream_options and asked.stream_options.include_usage),
        output_tokens_max=limit if limit is not None and limit > 0 else None,
        prompt_tokens=tokens,
        images=images,
        thinking=bool((asked.chat_template_kwargs or {}).get("enable_thinking", False)),
        seed=f"{asked.seed} {msgspec.json.encode(asked.messages).decode('utf-8', 'replace')}",
    )


def understand_completion(body: bytes, content_type: str | None) -> CompletionQuestion:
    """Raises NeuronError with the row that fits. A prompt is read once, whatever `n` is."""
    asked = decode(body, content_type, _CompletionBody)
    texts, sizes = _prompts(asked.prompt)
    suffix_tokens = 0 if asked.suffix is None else 3 + count_pieces(asked.suffix)
    questions = [
        ChatQuestion(
            model=asked.model,
            stream=bool(asked.stream),
            include_usage=False,
            output_tokens_max=asked.max_tokens,
            prompt_tokens=0 if again else size + suffix_tokens,
            images=0,
            thinking=False,
            seed=f"{asked.seed} {again} {text}",
        )
        for text, size in zip(texts, sizes, strict=True)
        for again in range(asked.n)
    ]
    include_usage = bool(asked.stream_options and asked.stream_options.include_usage)
    return CompletionQuestion(asked.model, bool(asked.stream), include_usage, tuple(questions))


def understand_response(body: bytes, content_type: str | None) -> ChatQuestion:
    """Raises NeuronError with the row that fits; nothing is remembered here."""
    asked = decode(body, content_type, _ResponseBody)
    if asked.previous_response_id is not None or asked.store:
        raise NeuronError(inference_error("invalid_request_body", "nothing is stored here"))
    tokens, images = PROMPT_TEMPLATE_TOKENS, 0
    if isinstance(asked.input, str):
        tokens += MESSAGE_TEMPLATE_TOKENS + count_pieces(asked.input)
    else:
        for item in asked.input:
            message = item if "role" in item else item | {"role": msgspec.Raw(b"null")}
            item_tokens, item_images = _message_size(message)
            tokens, images = tokens + item_tokens, images + item_images
    if asked.instructions is not None:
        tokens += MESSAGE_TEMPLATE_TOKENS + count_pieces(asked.instructions)
    return ChatQuestion(
        model=asked.model,
        stream=bool(asked.stream),
        include_usage=True,
        output_tokens_max=asked.max_output_tokens,
        prompt_tokens=tokens + _raw_pieces(asked.tools),
        images=images,
        thinking=False,
        seed=msgspec.json.encode(asked.input).decode("utf-8", "replace"),
    )


def understand_message(body: bytes, content_type: str | None) -> ChatQuestion:
    """Raises NeuronError with the row that fits. A block is a message of its own, with its marks;
    what is not its text counts as JSON.
    """
    asked = decode(body, content_type, _MessageBody)
    if not asked.messages:
        raise NeuronError(inference_error("invalid_request_body", "messages must not be empty"))
    tokens, images = PROMPT_TEMPLATE_TOKENS, 0
    for raw in [asked.system, *(message["content"] for message in asked.messages)]:
        if bytes(raw):
            block_tokens, block_images = _blocks_size(_parse(raw, object))
            tokens, images = tokens + block_tokens, images + block_images
    return ChatQuestion(
        model=asked.model,
        stream=bool(asked.stream),
        include_usage=True,
        output_tokens_max=asked.max_tokens,
        prompt_tokens=tokens + _raw_pieces(asked.tools),
        images=images,
        thinking=(asked.thinking or {}).get("type") in ("enabled", "adaptive"),
        seed=msgspec.json.encode(asked.messages).decode("utf-8", "replace"),
    )


def _blocks_size(content: object) -> tuple[int, int]:
    """Tokens and images of what a turn of a message holds."""
    if isinstance(content, str):
        return MESSAGE_TEMPLATE_TOKENS + count_pieces(content), 0
    tokens, images = 0, 0
    for block in content if isinstance(content, list) else ():
        match block:
            case {"type": "image"}:
                block_tokens, block_images = IMAGE_TOKENS, 1
            case {"type": "tool_result", "content": inner}:
                block_tokens, block_images = _blocks_size(inner)
            case {"type": "text", "text": str(text)} | {"type": "thinking", "thinking": str(text)}:
                block_tokens, block_images = count_pieces(text), 0
            case {"type": "tool_use", "name": str(name), "input": given}:
                written = msgspec.json.encode(given).decode("utf-8", "replace")
                block_tokens, block_images = count_pieces(name + written), 0
            case _:
                raise NeuronError(inference_error("template_render_failed", "unknown block"))
        tokens += MESSAGE_TEMPLATE_TOKENS + block_tokens
        images += block_images
    return tokens, images


def understand_embeddings(body: bytes, content_type: str | None) -> EmbeddingsQuestion:
    """Raises NeuronError with the row that fits.

    A list of integers is one text, given as tokens.
    """
    asked = decode(body, content_type, _EmbeddingsBody)
    texts, sizes = _prompts(asked.input)
    return EmbeddingsQuestion(
        asked.model, tuple(texts), sum(sizes), asked.encoding_format == "base64", asked.dimensions
    )


def _prompts(given: str | list[str | int | list[int]]) -> tuple[list[str], list[int]]:
    """Each prompt as a text, and its tokens. A list of integers is one prompt."""
    prompts = [given] if isinstance(given, str) else given
    if not prompts:
        raise NeuronError(inference_error("invalid_request_body", "input must not be empty"))
    if all(isinstance(item, int) for item in prompts):
        return [" ".join(map(str, prompts))], [len(prompts)]
    texts = [item if isinstance(item, str) else str(item) for item in prompts]
    sizes = [
        len(item) if isinstance(item, list) else 1 + count_pieces(str(item)) for item in prompts
    ]
    return texts, sizes


def decode(body: bytes, content_type: str | None, shape: type[_Body]) -> _Body:
    """A JSON body as a struct. Raises NeuronError with the row that fits: 415, 400 or 422."""
    if content_type is None or content_type.split(";")[0].strip().lower() != "application/json":
        raise NeuronError(inference_error("unsupported_media_type", "send application/json"))
    return _parse(body, shape)


def _parse(body: bytes | msgspec.Raw, shape: type[_Body]) -> _Body:
    try:
        return msgspec.json.decode(body, type=shape)
    except msgspec.ValidationError as problem:
        raise NeuronError(inference_error("invalid_request_body", str(problem))) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as problem:
        raise NeuronError(inference_error("malformed_json", str(problem))) from None


def _message_size(message: dict[str, msgspec.Raw]) -> tuple[int, int]:
    """Tokens and images of one message."""
    if "role" not in message:
        raise NeuronError(inference_error("invalid_request_body", "a message needs a role"))
    tokens, images = MESSAGE_TEMPLATE_TOKENS, 0
    for name, raw in message.items():
        if name == "content":
            content_tokens, images = _content_size(raw)
            tokens += content_tokens
        elif name != "role":
            tokens += _raw_pieces(raw)
    return tokens, images


def _content_size(raw: msgspec.Raw) -> tuple[int, int]:
    content = _parse(raw, object)
    if isinstance(content, str):
        return count_pieces(content), 0
    tokens, images = 0, 0
    for part in content if isinstance(content, list) else ():
        match part:
            case {"type": "image_url" | "input_image"}:
                tokens, images = tokens + IMAGE_TOKENS, images + 1
            case {"type": "text" | "input_text" | "output_text", "text": str(text)}:
                tokens += count_pieces(text)
            case _:
                raise NeuronError(inference_error("template_render_failed", "unknown content part"))
    return tokens, images


def _raw_pieces(raw: msgspec.Raw) -> int:
    return count_pieces(bytes(raw).decode("utf-8", "replace"))
