"""Agents in a terminal: Claude Code, opencode, Codex and aider."""

import shlex

from cortexd.cli.clients.snippet import (
    Client,
    Snippet,
    Wanted,
    exports,
    indented_json,
    known,
    quoted,
    shell_key,
)

AGENT_OUTPUT_TOKENS = 8192
"""What an agent may ask for in one answer where the model's own limit is not known."""

_MODEL_ROLES = (
    "ANTHROPIC_MODEL",
    "ANTHROPIC_DEFAULT_OPUS_MODEL",
    "ANTHROPIC_DEFAULT_SONNET_MODEL",
    "ANTHROPIC_DEFAULT_HAIKU_MODEL",
    "CLAUDE_CODE_SUBAGENT_MODEL",
)
"""Claude Code asks several models, some in the background: each must exist here."""


def _claude_code(wanted: Wanted) -> tuple[Snippet, ...]:
    output = wanted.output or AGENT_OUTPUT_TOKENS
    lines = exports(
        {
            "ANTHROPIC_BASE_URL": shlex.quote(wanted.root),
            "ANTHROPIC_AUTH_TOKEN": shell_key(wanted),
            **dict.fromkeys(_MODEL_ROLES, shlex.quote(wanted.model)),
            "CLAUDE_CODE_MAX_OUTPUT_TOKENS": str(output),
            "CLAUDE_CODE_ATTRIBUTION_HEADER": "0",
        }
    )
    # Were it set, too, it would be sent as a second key, and two different keys are refused.
    lines += "unset ANTHROPIC_API_KEY\n"
    return (Snippet("the shell that starts claude", "sh", lines),)


def _opencode(wanted: Wanted) -> tuple[Snippet, ...]:
    model: dict[str, object] = {"name": wanted.model}
    if wanted.context is not None and wanted.output is not None:  # it takes both or none
        model["limit"] = {"context": wanted.context, "output": wanted.output}
    key = f"{{env:{wanted.key_variable}}}" if wanted.key is None else wanted.key
    config = {
        "$schema": "https://opencode.ai/config.json",
        "model": f"cortexd/{wanted.model}",
        "small_model": f"cortexd/{wanted.model}",
        "provider": {
            "cortexd": {
                "npm": "@ai-sdk/openai-compatible",
                "name": "cortexd",
                "options": {"baseURL": wanted.v1, "apiKey": key},
                "models": {wanted.model: model},
            }
        },
    }
    return (Snippet("~/.config/opencode/opencode.json", "json", indented_json(config)),)


def _codex(wanted: Wanted) -> tuple[Snippet, ...]:
    lines = [
        f"model = {quoted(wanted.model)}",
        'model_provider = "cortexd"',
        *(f"{name} = {n}" for name, n in known(model_context_window=wanted.context).items()),
        'web_search = "disabled"',
        "",
        "[agents]",
        "enabled = false",
        "",
        "[model_providers.cortexd]",
        'name = "cortexd"',
        f"base_url = {quoted(wanted.v1)}",
        f"env_key = {quoted(wanted.key_variable)}",
        'wire_api = "responses"',
        "request_max_retries = 2",
        "stream_max_retries = 0",
    ]
    file = Snippet("~/.codex/config.toml", "toml", "\n".join(lines) + "\n")
    if wanted.key is None:
        return (file,)
    variable = exports({wanted.key_variable: shlex.quote(wanted.key)})
    return (file, Snippet("the shell that starts codex", "sh", variable))


def _aider(wanted: Wanted) -> tuple[Snippet, ...]:
    name = f"openai/{wanted.model}"
    variables = {"OPENAI_API_BASE": shlex.quote(wanted.v1), "OPENAI_API_KEY": shell_key(wanted)}
    start = f"aider --model {shlex.quote(name)} --weak-model {shlex.quote(name)}\n"
    shell = Snippet("a shell in your project", "sh", exports(variables) + start)
    limits = known(max_input_tokens=wanted.context, max_output_tokens=wanted.output)
    if not limits:
        return (shell,)
    entry = {**limits, "litellm_provider": "openai", "mode": "chat"}
    file = Snippet("~/.aider.model.metadata.json", "json", indented_json({name: entry}))
    return (shell, file)


CLIENTS = (
    Client(
        "claude-code",
        "Anthropic's agent; /v1/messages",
        _claude_code,
        (
            "The key goes into ANTHROPIC_AUTH_TOKEN alone: with ANTHROPIC_API_KEY beside it two"
            " keys are sent, and two different ones are refused.",
            "What it reserves per request is its prompt, tools included, and"
            " CLAUDE_CODE_MAX_OUTPUT_TOKENS; without that variable 32000.",
        ),
    ),
    Client(
        "opencode",
        "agent in a terminal; /v1/chat/completions",
        _opencode,
    ),
    Client(
        "codex",
        "OpenAI's agent; /v1/responses",
        _codex,
        (
            "Web search runs at OpenAI, and the tools for subagents are of a type that models here"
            " are not asked with: both are refused, hence switched off.",
            "A broken stream is not asked for again: it was paid for, and so would be the next.",
        ),
    ),
    Client(
        "aider",
        "pair programming over litellm; /v1/chat/completions",
        _aider,
        ("openai/ is litellm's word for the kind of server; cortexd never sees it.",),
    ),
)
