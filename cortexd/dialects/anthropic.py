"""Anthropic's Messages API: a request read, checked, and written as an OpenAI chat.

Owns the reading of `POST /v1/messages` and of `/v1/messages/count_tokens`. Refuses to know keys,
budgets and neurons. Turns are translated in `anthropic_turns.py`, tools in `anthropic_tools.py`.
Source: https://docs.anthropic.com/en/api/messages.

What comes out is an `Asked` as a chat request gives it, its sizes taken from the translated chat,
so that bounds, reservations and bodies for neurons know no second dialect.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from cortexd.dialects.anthropic_native import is_plain
from cortexd.dialects.anthropic_tools import chat_choice, chat_tools
from cortexd.dialects.anthropic_turns import Conversation
from cortexd.dialects.asked import Asked
from cortexd.dialects.body import Body, as_objects, invalid
from cortexd.dialects.context_fit import least_chat_tokens
from cortexd.dialects.fields import HARMLESS, NEVER_FORWARDED, READ_HERE, RENDERED
from cortexd.dialects.forwarding import OUTPUT_TOKENS_MAX, names_for_log
from cortexd.dialects.json_text import said_once
from cortexd.dialects.prompt_size import prompt_size
from cortexd.dialects.refusals import Refusal
from cortexd.dialects.surface import understood

if TYPE_CHECKING:
    from collections.abc import Iterator

READ = frozenset(
    {
        "max_tokens",
        "messages",
        "metadata",
        "model",
        "output_config",
        "output_format",
        "stop_sequences",
        "stream",
        "system",
        "temperature",
        "thinking",
        "tool_choice",
        "tools",
        "top_k",
        "top_p",
    }
)
"""Fields that are read and have a place in a chat; all others are taken out."""

EFFORTS = {"low": "low", "medium": "medium", "high": None, "xhigh": "high", "max": "high"}
"""`output_config.effort` -> `reasoning_effort`. `high` is what Anthropic takes when nothing is
said, and Claude Code says it always; Ollama refuses any effort for a model that does not think.
"""

SCHEMA_NAME = "answer"
"""What the schema of an answer is called: OpenAI wants a name, Anthropic has none."""

_OURS = HARMLESS | RENDERED | READ_HERE | NEVER_FORWARDED
_SAMPLING = ("temperature", "top_p", "top_k")
_ENCODE = msgspec.json.Encoder().encode


class AnthropicAsked(msgspec.Struct, frozen=True):
    """A message that a client asks for, checked.

    `asked`: the same as a chat. `stop_sequences`: those of the request, in which an answer may have
    ended. `thinking`: whether it was asked for; None when nothing was said. `hide_thinking`: the
    client wants to know that there was some, but not to read it. `body`: as it was sent, for
    neurons that read messages themselves. `needs_chat`: it has parts that only Anthropic's own
    servers read, and is served without them; or such that engines may read more into than its chat
    is bounded by.
    """

    asked: Asked
    stop_sequences: tuple[str, ...] = ()
    thinking: bool | None = None
    hide_thinking: bool = False
    body: Body | None = None
    needs_chat: bool = False

    @property
    def extra(self) -> dict[str, msgspec.Raw]:
        """The fields that the operator lets through."""
        return {name: raw for name, raw in self.asked.fields.items() if name not in _OURS}


def understand_messages(
    body: bytes, *, forward_fields: frozenset[str] = frozenset()
) -> AnthropicAsked | Refusal:
    """Read the body of a request for a message, or for the count of its tokens.

    `forward_fields`: names that the operator lets through, as for chats; none of those that a
    translation writes itself. Without `max_tokens` the model's own limit counts, as for chats.
    Refuses (400) what is no JSON object, lacks the model or messages, holds a value of a wrong type
    or content that no chat can carry; `param` names the field.
    """
    return understood(_asked, body, forward_fields)


class _Chat:
    """The fields of the chat, each encoded once, and those of them that may be rendered."""

    def __init__(self) -> None:
        self.fields: dict[str, msgspec.Raw] = {}
        self.rendered: list[bytes] = []

    def add(self, name: str, value: object) -> bytes:
        encoded = _ENCODE(value)
        self.add_encoded(name, msgspec.Raw(encoded), encoded)
        return encoded

    def add_encoded(self, name: str, raw: msgspec.Raw, encoded: bytes) -> None:
        self.fields[name] = raw
        if name not in HARMLESS and name != "messages":
            self.rendered.append(encoded)


def _asked(body: Body, forward_fields: frozenset[str]) -> AnthropicAsked:
    model = body.model()
    turns = body.required("messages")
    system, given = body.value("system"), as_objects(turns, "messages")
    conversation = Conversation(system, given)
    messages = conversation.messages
    if not messages:
        invalid("messages", "must not be empty")
    chat = _Chat()
    dropped = list(dict.fromkeys(conversation.left_out))
    encoded_messages = chat.add("messages", messages)
    if conversation.is_prefilled:
        chat.add("continue_final_message", True)
        chat.add("add_generation_prompt", False)
    dropped += _add_tools(body, chat)
    thinking, hide_thinking = _add_thinking(body, chat)
    stops = _add_plain_fields(body, chat)
    dropped += _add_output_config(body, chat)
    dropped += _pass_over(body, chat, forward_fields)
    asked = Asked(
        model=model,
        stream=body.flag("stream"),
        include_usage=False,
        choices=1,
        output_requested=body.integer("max_tokens", largest=OUTPUT_TOKENS_MAX),
        fields=chat.fields,
        dropped=names_for_log(dropped),
        prompt=prompt_size(messages, encoded_messages, chat.rendered),
        least_tokens=least_chat_tokens(messages),
    )
    needs_chat = bool(conversation.left_out) or not is_plain(given, system)
    return AnthropicAsked(asked, stops, thinking, hide_thinking, body, needs_chat)


def _add_tools(body: Body, chat: _Chat) -> list[str]:
    """Add tools and the choice among them; return the types of those that nobody needs here."""
    choice = chat_choice(body.mapping("tool_choice"))
    if "tools" not in body.fields:
        return []
    tools, needless = chat_tools(body.objects("tools"))
    if tools:  # a choice among none, or an empty list of them, is an error to some engines
        chat.add("tools", tools)
        for name, value in choice.items():
            chat.add(name, value)
    return needless


def _add_thinking(body: Body, chat: _Chat) -> tuple[bool | None, bool]:
    config = body.mapping("thinking")
    if config is None:
        return None, False
    kind = config.get("type")
    if not isinstance(kind, str):
        invalid("thinking.type", "must be a string")
    # Every kind but one thinks in some measure; that measure no chat can tell.
    thinking = kind != "disabled"
    chat.add("chat_template_kwargs", {"enable_thinking": thinking})
    return thinking, config.get("display") == "omitted"


def _add_plain_fields(body: Body, chat: _Chat) -> tuple[str, ...]:
    """Add sampling, stops and the user's id; return the stops."""
    for name in _SAMPLING:
        value = body.value(name)
        if value is not None:
            if type(value) not in (int, float):
                invalid(name, "must be a number")
            chat.add_encoded(name, body.fields[name], b"")
    user = (body.mapping("metadata") or {}).get("user_id")
    if isinstance(user, str):
        chat.add("user", user)
    stops = body.value("stop_sequences")
    if stops is None:
        return ()
    if not isinstance(stops, list) or not all(isinstance(stop, str) for stop in stops):
        invalid("stop_sequences", "must be an array of strings")
    if stops:
        chat.add("stop", stops)
    return tuple(stops)


def _add_output_config(body: Body, chat: _Chat) -> list[str]:
    config = body.mapping("output_config") or {}
    effort = config.get("effort")
    if isinstance(effort, str) and EFFORTS.get(effort) is not None:
        chat.add("reasoning_effort", EFFORTS[effort])
    older = body.value("output_format")
    where, form = "output_config.format", config.get("format")
    if form is None:
        where, form = "output_format", older
    if form is not None:
        shape = form if isinstance(form, dict) else {}
        schema = shape.get("schema")
        if shape.get("type") != "json_schema" or not isinstance(schema, dict):
            invalid(where, "must be an object of type 'json_schema' with a schema")
        named = {"name": SCHEMA_NAME, "schema": schema, "strict": True}
        chat.add("response_format", {"type": "json_schema", "json_schema": named})
    is_known = effort is None or (isinstance(effort, str) and effort in EFFORTS)
    return [] if is_known else ["output_config.effort"]


def _pass_over(body: Body, chat: _Chat, forward_fields: frozenset[str]) -> Iterator[str]:
    """Forward what the operator names; yield the names of all else."""
    for name, raw in body.fields.items():
        if name in READ:
            continue
        if name in forward_fields and name not in _OURS:
            chat.add_encoded(name, *said_once(raw, body.value(name)))
        else:
            yield name
