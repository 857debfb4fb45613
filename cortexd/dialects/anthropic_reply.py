"""A neuron's chat completion, written as the message that a client of Anthropic's dialect reads.

Owns what the plain reply and the stream have in common: what a choice says, why it stopped, what it
used. Refuses to know requests and sockets. Source: https://docs.anthropic.com/en/api/messages.
"""

from __future__ import annotations

import msgspec

from cortexd.dialects.generated import seen_in
from cortexd.dialects.surface import PlainReply
from cortexd.dialects.usage import Usage, read_usage

Call = dict[str, object]

REASONING = ("reasoning_content", "reasoning", "thinking")
"""Where engines put reasoning; some say the same under two of these names."""

BAD_ARGUMENTS = "bad_tool_arguments"
"""Note for the log: a tool was called with something that is no JSON object."""

NAMELESS_CALL = "nameless_tool_call"
"""Note for the log: a call without the name of a tool was left out, as nobody can follow it."""

_STOP_REASONS = {
    "length": "max_tokens",
    "content_filter": "refusal",
    "context_length_exceeded": "model_context_window_exceeded",
    "model_context_window_exceeded": "model_context_window_exceeded",
}
_STOP_STRINGS = ("stop_reason", "matched_stop", "stopping_word")
_VALUE = msgspec.json.Decoder()
_ENCODE = msgspec.json.Encoder().encode


def message_id(request_id: str) -> str:
    """The id of a message: that of its request, so that a client's report finds the log line."""
    return f"msg_{request_id}"


def tool_id(request_id: str, position: int) -> str:
    """An id for a call that came without one."""
    return f"toolu_{request_id}_{position}"


def message_reply(
    body: bytes,
    *,
    model: str,
    request_id: str,
    stop_sequences: tuple[str, ...] = (),
    hide_thinking: bool = False,
) -> PlainReply | None:
    """Translate a neuron's plain answer; None when it is no chat completion.

    `model`: the name the client used. `stop_sequences`, `hide_thinking`: as the client asked.
    """
    try:
        reply = _VALUE.decode(body)
        choice = _first_choice(reply)
        if choice is None:
            return None
        thinking, text, calls = said(choice)
        blocks: list[Call] = []
        if thinking:
            shown = "" if hide_thinking else thinking
            blocks.append({"type": "thinking", "thinking": shown, "signature": ""})
        if text:
            blocks.append({"type": "text", "text": text})
        uses, notes = _tool_uses(calls, request_id)
        blocks += uses
        usage = read_usage(reply.get("usage"))
        finish = choice.get("finish_reason")
        reason, stop = why_stopped(finish, choice, called=bool(uses), stops=stop_sequences)
        message = {
            "id": message_id(request_id),
            "type": "message",
            "role": "assistant",
            "model": model,
            "content": blocks,
            "stop_reason": reason,
            "stop_sequence": stop,
            "usage": usage_object(usage),
        }
        return PlainReply(_ENCODE(message), usage, seen_in(reply["choices"]), notes=notes)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _first_choice(reply: object) -> Call | None:
    if not isinstance(reply, dict) or reply.get("error"):
        return None
    choices = reply.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        return None
    return choices[0]


def said(choice: Call) -> tuple[str, str, list[Call]]:
    """Read thinking, text and tool calls (or pieces of them) from an entry of `choices`.

    Reads what `generated_bytes` counts, under the same names.
    """
    delta = choice.get("delta") or choice.get("message")
    if not isinstance(delta, dict):
        return "", _text(choice.get("text")), []
    thinking = ""
    for name in REASONING:
        thinking = _text(delta.get(name))
        if thinking:
            break
    text = _text(delta.get("content")) + _text(delta.get("refusal")) + _text(choice.get("text"))
    listed, function = delta.get("tool_calls"), delta.get("function_call")
    calls = [call for call in listed if isinstance(call, dict)] if isinstance(listed, list) else []
    if isinstance(function, dict):
        calls.append({"index": 0, "function": function})
    return thinking, text, calls


def _text(content: object) -> str:
    """The text of a string, or of a list of parts as some engines write it."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    parts = [part.get("text") for part in content if isinstance(part, dict)]
    return "".join(part for part in parts if isinstance(part, str))


def arguments_of(call: Call) -> tuple[str, str]:
    """The name of the tool, and its arguments (or a piece of them) as text; "" where absent."""
    function = call.get("function")
    if not isinstance(function, dict):
        return "", ""
    name, arguments = function.get("name"), function.get("arguments")
    if not isinstance(arguments, str):
        # Some engines write an object; a null is no arguments yet.
        arguments = "" if arguments is None else _ENCODE(arguments).decode()
    return name if isinstance(name, str) else "", arguments


def parsed_arguments(arguments: str) -> Call | None:
    """Decode the arguments of a call; None when they are no JSON object. No text means none."""
    if not arguments.strip():
        return {}
    try:
        parsed = _VALUE.decode(arguments)
    except (msgspec.DecodeError, RecursionError):
        return None
    return parsed if isinstance(parsed, dict) else None


def _tool_uses(calls: list[Call], request_id: str) -> tuple[list[Call], tuple[str, ...]]:
    uses: list[Call] = []
    notes: list[str] = []
    ids: set[str] = set()
    for position, call in enumerate(calls):
        name, arguments = arguments_of(call)
        if not name:
            notes.append(NAMELESS_CALL)
            continue
        parsed = parsed_arguments(arguments)
        if parsed is None:
            notes.append(BAD_ARGUMENTS)
        given = call.get("id")
        unique = given if isinstance(given, str) and given and given not in ids else ""
        unique = unique or tool_id(request_id, position)
        ids.add(unique)
        uses.append({"type": "tool_use", "id": unique, "name": name, "input": parsed or {}})
    return uses, tuple(dict.fromkeys(notes))


def why_stopped(
    finish: object, choice: Call, *, called: bool, stops: tuple[str, ...]
) -> tuple[str, str | None]:
    """Translate a finish_reason to `stop_reason` and `stop_sequence`.

    `called`: a tool was called, which counts whatever the engine says, unless the answer was cut
    short: the last call is then only half a call. A string that an engine says it stopped at counts
    if the client asked for it.
    """
    reason = _STOP_REASONS.get(finish) if isinstance(finish, str) else None
    if reason is not None:
        return reason, None
    if called:
        return "tool_use", None
    for name in _STOP_STRINGS:
        stop = choice.get(name)
        if isinstance(stop, str) and stop in stops:
            return "stop_sequence", stop
    return "end_turn", None


def usage_object(
    usage: Usage | None, *, input_tokens: int = 0, output_tokens: int = 0
) -> dict[str, int]:
    """Write `usage`; the two numbers stand in where the engine has told nothing."""
    cached = 0
    if usage is not None:
        cached = usage.cached_prompt_tokens
        input_tokens, output_tokens = usage.prompt_tokens - cached, usage.completion_tokens
    return {
        "input_tokens": input_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached,
        "output_tokens": output_tokens,
    }


def token_count(*, bound_tokens: int, exact_tokens: int | None = None) -> bytes:
    """Answer `count_tokens`: with a tokenizer's count if there is one, else with the bound."""
    return _ENCODE({"input_tokens": bound_tokens if exact_tokens is None else exact_tokens})
