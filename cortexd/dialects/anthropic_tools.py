"""Anthropic's tools and the choice among them, written as an OpenAI chat has them.

Owns their shapes. Refuses to know turns, in which tools are used.
Source: https://docs.anthropic.com/en/docs/agents-and-tools/tool-use/overview.
"""

from __future__ import annotations

from cortexd.dialects.body import Unfit, as_flag, invalid
from cortexd.dialects.refusals import RefusalKind

CUSTOM = ("custom", None)
"""Types of tools that a client describes and runs itself; all others have a version in the name."""

NEEDLESS_PREFIX = "tool_search_tool_"
"""Tools that look for tools: here every tool is shown to the model, so there is nothing to find."""

CHOICES = {"auto": "auto", "any": "required", "none": "none"}


def chat_tools(tools: list[dict[str, object]]) -> tuple[list[dict[str, object]], list[str]]:
    """Translate tools; return them, and the types of those that are needless here.

    Raises Unfit for tools of Anthropic's own: it alone runs them, or knows how they are described.
    """
    functions: list[dict[str, object]] = []
    needless: list[str] = []
    for position, tool in enumerate(tools):
        at = f"tools[{position}]"
        kind = tool.get("type")
        if isinstance(kind, str) and kind.startswith(NEEDLESS_PREFIX):
            needless.append(kind)
        elif kind in CUSTOM:
            functions.append({"type": "function", "function": _function(tool, at)})
        else:
            message = (
                f"Unsupported value of '{at}.type': only tools that are described by an "
                "input_schema and run by the client are served."
            )
            raise Unfit(RefusalKind.UNSUPPORTED_PARAMETER, message, f"{at}.type")
    return functions, needless


def _function(tool: dict[str, object], at: str) -> dict[str, object]:
    name, schema = tool.get("name"), tool.get("input_schema")
    if not isinstance(name, str) or not name:
        invalid(f"{at}.name", "must be a non-empty string")
    if not isinstance(schema, dict):
        invalid(f"{at}.input_schema", "must be an object")
    function: dict[str, object] = {"name": name}
    description = tool.get("description")
    if isinstance(description, str):
        function["description"] = description
    function["parameters"] = schema
    if isinstance(tool.get("strict"), bool):
        function["strict"] = tool["strict"]
    return function


def chat_choice(choice: dict[str, object] | None) -> dict[str, object]:
    """Translate `tool_choice` to the fields of a chat: itself and `parallel_tool_calls`."""
    if choice is None:
        return {}
    fields: dict[str, object] = {}
    kind = choice.get("type")
    if kind == "tool":
        name = choice.get("name")
        if not isinstance(name, str):
            invalid("tool_choice.name", "must be a string")
        fields["tool_choice"] = {"type": "function", "function": {"name": name}}
    elif isinstance(kind, str) and kind in CHOICES:
        fields["tool_choice"] = CHOICES[kind]
    else:
        invalid("tool_choice.type", "must be 'auto', 'any', 'none' or 'tool'")
    param = "tool_choice.disable_parallel_tool_use"
    if as_flag(choice.get("disable_parallel_tool_use"), param):
        fields["parallel_tool_calls"] = False
    return fields
