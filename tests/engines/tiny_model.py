"""Writes two tiny language models that a real llama.cpp loads: random weights, real forward passes.

    PYTHONPATH=.sdk/gguf python tests/engines/tiny_model.py DIRECTORY

makes `stops.gguf`, whose answers end by themselves after varying lengths, and `endless.gguf`, which
generates until it is stopped. Nothing is downloaded, and the same versions of numpy and gguf write
the same bytes every time. Knows nothing of engines and tests; runs apart from them, because the two
libraries it needs are no part of the test environment.

Theory of operation. A model with random weights speaks in stray bytes and hardly ever stops. So
channel 0 of the residual stream is kept apart: every token's embedding sets it to the same number
and no layer writes to it. Whatever else happens in there, the output matrix finds a constant in
that channel, which makes its column 0 a table of biases: whole words likely, fragments rare,
markers never, and the end of the answer as likely as wanted.
"""

import argparse
import itertools
from collections import Counter
from pathlib import Path

import gguf  # type: ignore[import-not-found]  # in .sdk/gguf, which mypy does not see
import numpy  # type: ignore[import-not-found]

CONTEXT_TOKENS = 32_768
WIDTH = 64
LAYERS = 2
HEADS = 4
INNER_WIDTH = 128
SEED = 20

LEARNED_FROM = (
    "a cortex is made of many neurons and every one of them answers when it is asked while a "
    "careful gateway writes down what each answer may cost before it lets the question through so "
    "that nobody can spend more than was set aside for them and even a storm of requests at night "
    "or a power cut in the middle of a word leaves the book of tokens in good order by morning"
)
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MARKERS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")

#: Biases, to be multiplied by what channel 0 holds after the last norm (about 2.5).
FRAGMENT, WORD, NEVER = -8.0, 0.0, -60.0
STOPS, ENDLESS = 0.6, NEVER
CONSTANT = 4.0
SPREAD = 1.5

Pair = tuple[str, str]


def byte_characters() -> list[str]:
    """The printable character that stands for each byte in a GPT-2 vocabulary.

    Printable bytes stand for themselves, the others take characters from 256 on, in order
    (https://github.com/openai/gpt-2/blob/master/src/encoder.py, `bytes_to_unicode`).
    """
    printable = {*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    stand_ins = itertools.count(0x100)
    return [chr(byte if byte in printable else next(stand_ins)) for byte in range(0x100)]


def learned_merges(text: str) -> tuple[list[Pair], set[str]]:
    """Byte pair encoding learned until every word of `text` is one token: merges, and the words."""
    characters = byte_characters()
    counts = Counter(text.split())
    words = {word: [characters[byte] for byte in f" {word}".encode()] for word in counts}
    merges: list[Pair] = []
    while True:
        pairs: Counter[Pair] = Counter()
        for word, symbols in words.items():
            for pair in itertools.pairwise(symbols):
                pairs[pair] += counts[word]
        if not pairs:
            return merges, {symbols[0] for symbols in words.values()}
        merge = max(pairs, key=lambda pair: (pairs[pair], pair))
        merges.append(merge)
        words = {word: _merged(symbols, merge) for word, symbols in words.items()}


def _merged(symbols: list[str], merge: Pair) -> list[str]:
    result: list[str] = []
    for symbol in symbols:
        if result and (result[-1], symbol) == merge:
            result[-1] += symbol
        else:
            result.append(symbol)
    return result


class Vocabulary:
    """The tokens in order: every byte, what merges make, the markers, and filling up to 32s."""

    def __init__(self) -> None:
        self.merges, self.words = learned_merges(LEARNED_FROM)
        plain = dict.fromkeys([*byte_characters(), *(left + right for left, right in self.merges)])
        self.plain_count = len(plain)
        self.tokens = [*plain, *MARKERS]
        self.tokens += [f"<|unused{n}|>" for n in range(-len(self.tokens) % 32)]
        self.end_of_text, self.start, self.end = map(self.tokens.index, MARKERS)

    def biases(self, end: float) -> list[float]:
        """How likely each token is to be spoken; `end` for the one that ends an answer."""
        plain = self.tokens[: self.plain_count]
        result = [WORD if token in self.words else FRAGMENT for token in plain]
        result += [NEVER] * (len(self.tokens) - self.plain_count)
        result[self.end] = end
        return result


class Weights:
    """Seeded random matrices, all from one generator, so that their order matters."""

    def __init__(self) -> None:
        self._random = numpy.random.default_rng(SEED)

    def matrix(self, rows: int, columns: int) -> numpy.ndarray:
        """Keeps the size of what goes through it."""
        values = self._random.standard_normal((rows, columns)) / numpy.sqrt(columns)
        return values.astype(numpy.float32)

    def silent_on_channel_0(self, columns: int) -> numpy.ndarray:
        """For what a layer adds to the residual stream."""
        values = self.matrix(WIDTH, columns)
        values[0, :] = 0
        return values


def tensors(vocabulary: Vocabulary, *, end: float) -> dict[str, numpy.ndarray]:
    """Every tensor of the model, by the name that llama.cpp knows it under."""
    weights, size = Weights(), len(vocabulary.tokens)
    ones = numpy.ones(WIDTH, numpy.float32)
    embedding = weights.matrix(size, WIDTH) * numpy.float32(WIDTH**0.5)
    embedding[:, 0] = CONSTANT
    result = {"token_embd.weight": embedding, "output_norm.weight": ones}
    for layer in range(LAYERS):
        block = {
            "attn_norm": ones,
            "attn_q": weights.matrix(WIDTH, WIDTH),
            "attn_k": weights.matrix(WIDTH, WIDTH),
            "attn_v": weights.matrix(WIDTH, WIDTH),
            "attn_output": weights.silent_on_channel_0(WIDTH),
            "ffn_norm": ones,
            "ffn_gate": weights.matrix(INNER_WIDTH, WIDTH),
            "ffn_up": weights.matrix(INNER_WIDTH, WIDTH),
            "ffn_down": weights.silent_on_channel_0(INNER_WIDTH),
        }
        result |= {f"blk.{layer}.{name}.weight": values for name, values in block.items()}
    output = weights.matrix(size, WIDTH) * numpy.float32(SPREAD)
    output[vocabulary.end] = 0  # how often an answer ends is left to the bias alone
    output[:, 0] = vocabulary.biases(end)
    return {**result, "output.weight": output}


def write_model(path: Path, vocabulary: Vocabulary, *, end: float) -> None:
    """Write one model: llama architecture, 32-bit floats."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name(path.stem)
    writer.add_context_length(CONTEXT_TOKENS)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER_WIDTH)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(vocabulary.tokens))
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    _write_vocabulary(writer, vocabulary)
    for name, values in tensors(vocabulary, end=end).items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _write_vocabulary(writer: gguf.GGUFWriter, vocabulary: Vocabulary) -> None:
    markers = len(vocabulary.tokens) - vocabulary.plain_count
    types = [gguf.TokenType.NORMAL] * vocabulary.plain_count + [gguf.TokenType.CONTROL] * markers
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(types)
    writer.add_token_merges([" ".join(merge) for merge in vocabulary.merges])
    writer.add_bos_token_id(vocabulary.end_of_text)
    writer.add_pad_token_id(vocabulary.end_of_text)
    writer.add_eos_token_id(vocabulary.end)
    writer.add_eot_token_id(vocabulary.end)
    writer.add_add_bos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)


def main() -> None:
    """Write both models."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path)
    directory: Path = parser.parse_args().directory
    directory.mkdir(parents=True, exist_ok=True)
    vocabulary = Vocabulary()
    write_model(directory / "stops.gguf", vocabulary, end=STOPS)
    write_model(directory / "endless.gguf", vocabulary, end=ENDLESS)


if __name__ == "__main__":
    main()
