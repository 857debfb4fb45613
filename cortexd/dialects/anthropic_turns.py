"""Anthropic's system prompt and turns, written as the messages of an OpenAI chat.

Owns the blocks that turns are made of. Refuses to know every other field of a request. Source:
https://docs.anthropic.com/en/api/messages.

A prompt belongs to its caller, so nothing is added, merged or moved but where a chat has no place
for it: system turns move to the front, as most chat templates take one system message and take it
first; several texts of one turn become one string, as many templates read no other content; tool
results become messages of their own, and images in them are shown after them.
"""

from __future__ import annotations

import msgspec

from cortexd.dialects.body import Unfit, invalid
from cortexd.dialects.refusals import RefusalKind

BILLING_PREFIX = "x-anthropic-billing-header"
"""How a line begins that Claude Code writes anew for every request: it would defeat every prefix
cache, and says nothing to a model.
"""

ERROR_PREFIX = "Error: "
"""What a tool result that is an error begins with: a chat has no flag for it."""

PDF_NAME = "document.pdf"

Message = dict[str, object]
_ENCODE = msgspec.json.Encoder().encode

# Between the texts of a turn stands what llama.cpp and vLLM put there for templates that read text.
_BETWEEN_TEXTS = "\n"
_BETWEEN_SYSTEM_TEXTS = "\n\n"
_OF_SERVERS = ("server_tool_use", "mcp_tool_use", "container_upload", "redacted_thinking")


class Conversation:
    """The messages of a chat, as they are gathered.

    `left_out`: types of blocks that only Anthropic's own servers can read (encrypted thinking,
    results of hosted tools); a conversation that holds some is served without them.
    """

    def __init__(self, system: object, turns: list[Message]) -> None:
        """Translate `system` (a string, text blocks or None) and all turns; raises Unfit."""
        self.left_out: list[str] = []
        self._messages: list[Message] = []
        self._system: list[str] = []
        self._ends_with_system = bool(turns) and turns[-1].get("role") == "system"
        if system is not None:
            self._add_system(system, "system")
        for position, turn in enumerate(turns):
            self._add_turn(turn, f"messages[{position}]")

    @property
    def messages(self) -> list[Message]:
        """The messages of the chat, the system message first."""
        if not self._system:
            return self._messages
        text = _BETWEEN_SYSTEM_TEXTS.join(self._system)
        return [{"role": "system", "content": text}, *self._messages]

    @property
    def is_prefilled(self) -> bool:
        """Whether the last turn is the beginning of the answer, to be gone on with.

        One that a system turn follows is over, although that one is told before all others.
        """
        if not self._messages or self._ends_with_system:
            return False
        last = self._messages[-1]
        return last["role"] == "assistant" and bool(last["content"]) and "tool_calls" not in last

    def _add_turn(self, turn: Message, where: str) -> None:
        content = turn.get("content")
        match turn.get("role"):
            case "user":
                self._add_user(content, f"{where}.content")
            case "assistant":
                self._add_assistant(content, f"{where}.content")
            case "system":
                self._add_system(content, f"{where}.content")
            case _:
                invalid(f"{where}.role", "must be 'user', 'assistant' or 'system'")

    def _add_system(self, content: object, where: str) -> None:
        for at, block in _blocks(content, where):
            if block.get("type") != "text":
                invalid(f"{at}.type", "must be 'text'")
            text = without_billing(_string(block, "text", at))
            if text:
                self._system.append(text)

    def _add_user(self, content: object, where: str) -> None:
        if isinstance(content, str):
            self._messages.append({"role": "user", "content": content})
            return
        shown: list[Message] = []
        said: list[Message] = []
        has_results = False
        for at, block in _blocks(content, where):
            if block.get("type") == "tool_result":
                has_results = True
                shown += self._add_result(block, at)
            else:
                said += self._parts(block, at)
        if shown or said or not has_results:
            self._messages.append({"role": "user", "content": _content(shown + said)})

    def _add_result(self, block: Message, at: str) -> list[Message]:
        """Add what a tool said; return what of it only a user can show."""
        content = block.get("content")
        parts: list[Message] = []
        if content is not None:
            for inner_at, inner in _blocks(content, f"{at}.content"):
                parts += self._parts(inner, inner_at)
        text = _BETWEEN_TEXTS.join(_texts(parts))
        if block.get("is_error"):
            text = (ERROR_PREFIX + text) if text else ERROR_PREFIX.rstrip(": ")
        call = _string(block, "tool_use_id", at)
        self._messages.append({"role": "tool", "tool_call_id": call, "content": text})
        return [part for part in parts if part["type"] != "text"]

    def _add_assistant(self, content: object, where: str) -> None:
        if isinstance(content, str):
            self._messages.append({"role": "assistant", "content": content})
            return
        texts: list[str] = []
        thoughts: list[str] = []
        calls: list[Message] = []
        for at, block in _blocks(content, where):
            match block.get("type"):
                case "text":
                    texts.append(_string(block, "text", at))
                case "thinking":
                    thoughts.append(_string(block, "thinking", at))
                case "tool_use":
                    calls.append(_call(block, at))
                case other:
                    self._leave_out(other, at)
        text = _BETWEEN_TEXTS.join(texts)
        message: Message = {"role": "assistant", "content": text}
        if any(thoughts):
            message["reasoning_content"] = _BETWEEN_TEXTS.join(thoughts)
        if calls:
            message["content"] = text or None
            message["tool_calls"] = calls
        self._messages.append(message)

    def _parts(self, block: Message, at: str) -> list[Message]:
        match block.get("type"):
            case "text":
                return [_text(_string(block, "text", at))]
            case "image":
                return [_image(block, at)]
            case "document":
                return self._document(block, at)
            case "search_result":
                head = [_string(block, name, at) for name in ("title", "source")]
                texts = [
                    part
                    for inner_at, inner in _blocks(block.get("content"), f"{at}.content")
                    for part in self._parts(inner, inner_at)
                ]
                return [*map(_text, head), *texts]
            case "tool_reference":
                return [_text(_string(block, "tool_name", at))]
            case other:
                self._leave_out(other, at)
                return []

    def _document(self, block: Message, at: str) -> list[Message]:
        source = _source(block, at)
        title, context = block.get("title"), block.get("context")
        about = [_text(words) for words in (title, context) if isinstance(words, str) and words]
        match source.get("type"):
            case "text":
                return [*about, _text(_string(source, "data", f"{at}.source"))]
            case "content":
                inner = _blocks(source.get("content"), f"{at}.source.content")
                return about + [part for place, each in inner for part in self._parts(each, place)]
            case "base64":
                name = title if isinstance(title, str) and title else PDF_NAME
                data = _data_address(source, f"{at}.source")
                pdf: Message = {"type": "file", "file": {"filename": name, "file_data": data}}
                return [*about, pdf]
        raise _unsupported(f"{at}.source.type", "documents come as base64, text or content here")

    def _leave_out(self, kind: object, at: str) -> None:
        """Pass over a block that only Anthropic can read; complain about any other."""
        if not isinstance(kind, str):
            invalid(f"{at}.type", "must be a string")
        if kind not in _OF_SERVERS and not kind.endswith("_tool_result"):
            raise _unsupported(f"{at}.type", "such a block cannot be put into a chat")
        self.left_out.append(kind)


def _blocks(content: object, where: str) -> list[tuple[str, Message]]:
    """Content as blocks, each with its place in the request; a string is one block of text."""
    if isinstance(content, str):
        return [(where, {"type": "text", "text": content})]
    if not isinstance(content, list):
        invalid(where, "must be a string or an array of content blocks")
    blocks: list[tuple[str, Message]] = []
    for position, block in enumerate(content):
        at = f"{where}[{position}]"
        if not isinstance(block, dict):
            invalid(at, "must be an object")
        blocks.append((at, block))
    return blocks


def _content(parts: list[Message]) -> object:
    texts = _texts(parts)
    return _BETWEEN_TEXTS.join(texts) if len(texts) == len(parts) else parts


def _texts(parts: list[Message]) -> list[str]:
    return [str(part["text"]) for part in parts if part["type"] == "text"]


def _text(text: str) -> Message:
    return {"type": "text", "text": text}


def _image(block: Message, at: str) -> Message:
    source = _source(block, at)
    match source.get("type"):
        case "base64":
            address = _data_address(source, f"{at}.source")
        case "url":
            address = _string(source, "url", f"{at}.source")
        case _:
            raise _unsupported(f"{at}.source.type", "images come as base64 or url here")
    return {"type": "image_url", "image_url": {"url": address}}


def _call(block: Message, at: str) -> Message:
    given = block.get("input")
    if not isinstance(given, dict):
        invalid(f"{at}.input", "must be an object")
    name = _string(block, "name", at)
    function = {"name": name, "arguments": _ENCODE(given).decode()}
    return {"id": _string(block, "id", at), "type": "function", "function": function}


def _source(block: Message, at: str) -> Message:
    source = block.get("source")
    if not isinstance(source, dict):
        invalid(f"{at}.source", "must be an object")
    return source


def _data_address(source: Message, at: str) -> str:
    return f"data:{_string(source, 'media_type', at)};base64,{_string(source, 'data', at)}"


def _string(block: Message, name: str, at: str) -> str:
    value = block.get(name)
    if not isinstance(value, str):
        invalid(f"{at}.{name}", "must be a string")
    return value


def without_billing(text: str) -> str:
    """Take out the lines that Claude Code writes anew for every request."""
    if BILLING_PREFIX not in text:
        return text
    kept = [line for line in text.split("\n") if not line.startswith(BILLING_PREFIX)]
    return "\n".join(kept)


def _unsupported(param: str, why: str) -> Unfit:
    message = f"Unsupported value of '{param}': {why}."
    return Unfit(RefusalKind.UNSUPPORTED_PARAMETER, message, param)
