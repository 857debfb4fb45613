"""A plain completion, put together from the chunks of a stream.

Owns how pieces become wholes: texts and arguments are joined, lists go on, all else is what was
said last. Chunks come from a neuron: a piece of a shape that it should not have is left out.
Refuses to know streams and whether an answer is whole (gathering.py).
Source: https://platform.openai.com/docs/api-reference/chat-streaming.
"""

from __future__ import annotations

Fields = dict[str, object]

_TEXTS = frozenset({"content", "refusal", "reasoning_content", "reasoning", "thinking"})
_OF_CHUNKS = frozenset({"choices", "object", "usage"})
_OF_CHOICES = frozenset({"index", "delta", "message", "text", "logprobs", "finish_reason"})
_INDEX_MAX = 127


class Assembly:
    """One answer in the making. `is_chat`: a chat completion, else a text completion."""

    def __init__(self, *, is_chat: bool) -> None:
        self._is_chat = is_chat
        self._common: Fields = {}
        self._choices: dict[int, _Choice] = {}
        self._usage: object = None

    def add(self, chunk: Fields) -> None:
        """Take one decoded chunk."""
        self._common |= {name: chunk[name] for name in chunk if name not in _OF_CHUNKS}
        self._usage = chunk.get("usage") or self._usage
        for position, choice in enumerate(_list(chunk.get("choices"))):
            if isinstance(choice, dict):
                self._choice(_index(choice, position)).add(choice)

    def end(self, index: int, finish_reason: str) -> None:
        """End a choice that the engine did not end."""
        self._choice(index).finish_reason = finish_reason

    def whole(self) -> Fields:
        """The answer as a plain request would have got it."""
        choices = [
            {"index": index, **self._choices[index].whole(is_chat=self._is_chat)}
            for index in sorted(self._choices)
        ]
        name = "chat.completion" if self._is_chat else "text_completion"
        whole = {**self._common, "object": name, "choices": choices}
        return whole if self._usage is None else {**whole, "usage": self._usage}

    def _choice(self, index: int) -> _Choice:
        return self._choices.setdefault(index, _Choice())


class _Choice:
    def __init__(self) -> None:
        self.finish_reason: object = None
        self._text = _Pieces()
        self._message = _Message()
        self._logprobs: _Pieces | None = None
        self._says_logprobs = False
        self._others: Fields = {}

    def add(self, choice: Fields) -> None:
        self._text.add({name: choice[name] for name in ("text",) if name in choice})
        self._message.add(_dict(choice.get("delta")))
        self._says_logprobs |= "logprobs" in choice
        logprobs = choice.get("logprobs")
        if isinstance(logprobs, dict):
            self._logprobs = self._logprobs or _Pieces()
            self._logprobs.add(logprobs)
        self.finish_reason = choice.get("finish_reason") or self.finish_reason
        _say(self._others, {name: choice[name] for name in choice if name not in _OF_CHOICES})

    def whole(self, *, is_chat: bool) -> Fields:
        whole: Fields = {"text": "", **self._text.whole()}
        if is_chat:
            whole = {"message": self._message.whole()}
        if self._says_logprobs:
            whole["logprobs"] = None if self._logprobs is None else self._logprobs.whole()
        return {**whole, **self._others, "finish_reason": self.finish_reason}


class _Message:
    def __init__(self) -> None:
        self._pieces = _Pieces()
        self._calls: list[_Call] = []
        self._by_index: dict[int, _Call] = {}
        self._function: _Call | None = None
        self._others: Fields = {}

    def add(self, delta: Fields) -> None:
        self._pieces.add({name: delta[name] for name in delta if name in _TEXTS})
        for position, call in enumerate(_list(delta.get("tool_calls"))):
            if isinstance(call, dict):
                self._call_of(call, position).add(call)
        function = delta.get("function_call")
        if isinstance(function, dict):
            self._function = self._function or _Call()
            self._function.add({"function": function})
        others = _TEXTS | {"tool_calls", "function_call"}
        rest = {name: delta[name] for name in delta if name not in others}
        self._pieces.add({name: each for name, each in rest.items() if isinstance(each, list)})
        _say(self._others, {name: each for name, each in rest.items() if type(each) is not list})

    def whole(self) -> Fields:
        whole = {"role": "assistant", "content": None, **self._others, **self._pieces.whole()}
        if self._calls:
            in_order = sorted(self._calls, key=lambda call: call.index)
            whole["tool_calls"] = [call.whole() for call in in_order]
        if self._function is not None:
            whole["function_call"] = self._function.whole()["function"]
        return whole

    def _call_of(self, piece: Fields, position: int) -> _Call:
        """Find the call that a piece belongs to, or begin one.

        By index, as far as ids do not say otherwise: some engines give none, or the same to all.
        """
        index, id = _index(piece, position), piece.get("id")
        call = self._by_index.get(index)
        if "index" not in piece:
            newest = self._calls[-_INDEX_MAX:]
            call = next((each for each in newest if id and each.id == id), call)
        is_named = bool(_dict(piece.get("function")).get("name"))
        if call is None or (is_named and id and call.id and call.id != id):
            call = self._by_index[index] = _Call(index)
            self._calls.append(call)
        return call


class _Call:
    """A call of a tool. Its arguments come in pieces, its name as a whole: engines that say a name
    again mean the same call. Its index is no part of the whole.
    """

    def __init__(self, index: int = 0) -> None:
        self.index = index
        self._said: Fields = {}
        self._function: Fields = {}
        self._arguments = _Pieces()

    @property
    def id(self) -> object:
        """What the engine calls it; None as long as it has not said."""
        return self._said.get("id")

    def add(self, call: Fields) -> None:
        kept = {name: call[name] for name in call if name not in ("index", "function")}
        self._said = {name: each for name, each in kept.items() if each} | self._said
        function = _dict(call.get("function"))
        self._arguments.add({name: function[name] for name in function if name == "arguments"})
        named = {name: each for name, each in function.items() if name != "arguments" and each}
        self._function = named | self._function

    def whole(self) -> Fields:
        return {**self._said, "function": {**self._function, **self._arguments.whole()}}


class _Pieces:
    """Texts and lists by name, joined in the end. Of anything else the last one counts."""

    def __init__(self) -> None:
        self._lists: dict[str, list[object]] = {}
        self._texts: dict[str, list[str]] = {}
        self._others: Fields = {}

    def add(self, fields: Fields) -> None:
        for name, piece in fields.items():
            if isinstance(piece, str):
                self._texts.setdefault(name, []).append(piece)
            elif isinstance(piece, list):
                self._lists.setdefault(name, []).extend(piece)
            else:
                _say(self._others, {name: piece})

    def whole(self) -> Fields:
        texts = {name: "".join(pieces) for name, pieces in self._texts.items()}
        return {**self._others, **self._lists, **texts}


def _say(fields: Fields, said: Fields) -> None:
    """Keep what is said, the last of each; null takes nothing back."""
    for name, value in said.items():
        if value is not None or name not in fields:
            fields[name] = value


def _index(entry: Fields, position: int) -> int:
    index = entry.get("index", position)
    return index if type(index) is int and 0 <= index <= _INDEX_MAX else 0


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _dict(value: object) -> Fields:
    return value if isinstance(value, dict) else {}
