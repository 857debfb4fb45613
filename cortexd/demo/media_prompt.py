"""What a simulated neuron reads of requests for media and for an order of documents. Pure."""

import msgspec

from cortexd.demo.errors import NeuronError, inference_error
from cortexd.demo.prompt import count_pieces, decode
from cortexd.dialects.multipart import NoForm, read_form

STEPS_DEFAULT = 20
SIDE_PIXELS_MAX = 2048

_PAIR_TOKENS = 4


class _Text(msgspec.Struct, frozen=True):
    text: str


class _RerankBody(msgspec.Struct, frozen=True):
    model: str
    query: str
    documents: list[str | _Text]
    top_n: int | None = None


class _ImageBody(msgspec.Struct, frozen=True):
    model: str
    prompt: str
    n: int = 1
    size: str = "1024x1024"
    response_format: str = "b64_json"
    num_steps: int = STEPS_DEFAULT
    negative_prompt: str | None = None


class SpeechQuestion(msgspec.Struct, frozen=True):
    """A text to be spoken, understood."""

    model: str
    input: str
    voice: str


class RerankQuestion(msgspec.Struct, frozen=True):
    """A query and its documents, understood."""

    model: str
    query: str
    documents: tuple[str, ...]
    top_n: int | None
    prompt_tokens: int


class ImageQuestion(msgspec.Struct, frozen=True):
    """Pictures that are asked for, understood."""

    model: str
    prompt: str
    images: int
    width: int
    height: int
    num_steps: int
    negative_prompt: str | None


class TranscriptionQuestion(msgspec.Struct, frozen=True):
    """A piece of audio, understood."""

    model: str
    audio: bytes
    response_format: str


def understand_rerank(body: bytes, content_type: str | None) -> RerankQuestion:
    """Raises NeuronError with the row that fits. The query is read with every document."""
    asked = decode(body, content_type, _RerankBody)
    texts = tuple(each if isinstance(each, str) else each.text for each in asked.documents)
    query_tokens = count_pieces(asked.query)
    tokens = sum(query_tokens + count_pieces(text) + _PAIR_TOKENS for text in texts)
    return RerankQuestion(asked.model, asked.query, texts, asked.top_n, tokens)


def understand_image(body: bytes, content_type: str | None) -> ImageQuestion:
    """Raises NeuronError with the row that fits."""
    asked = decode(body, content_type, _ImageBody)
    width, _, height = asked.size.partition("x")
    if not (width.isdigit() and height.isdigit()):
        raise NeuronError(inference_error("invalid_size", f"size {asked.size} is none"))
    sides = (int(width), int(height))
    if any(side % 16 or not 16 <= side <= SIDE_PIXELS_MAX for side in sides):
        message = f"sides must be multiples of 16 up to {SIDE_PIXELS_MAX}"
        raise NeuronError(inference_error("invalid_size", message))
    if asked.response_format != "b64_json":
        raise NeuronError(inference_error("unsupported_parameter", "b64_json only"))
    return ImageQuestion(
        asked.model, asked.prompt, asked.n, *sides, asked.num_steps, asked.negative_prompt
    )


def understand_transcription(body: bytes, content_type: str) -> TranscriptionQuestion:
    """Raises NeuronError with the row that fits."""
    try:
        parts = {part.name: part.data for part in read_form(body, content_type)}
    except NoForm as no_form:
        raise NeuronError(inference_error("unsupported_media_type", str(no_form))) from None
    if not parts.keys() >= {"model", "file"}:
        raise NeuronError(inference_error("invalid_request_body", "model and file are needed"))
    response_format = parts.get("response_format", b"json").decode()
    return TranscriptionQuestion(parts["model"].decode(), parts["file"], response_format)


def understand_speech(body: bytes, content_type: str | None) -> SpeechQuestion:
    """Raises NeuronError with the row that fits."""
    return decode(body, content_type, SpeechQuestion)
