"""Editors: Zed and Continue."""

from cortexd.cli.clients.snippet import (
    KEY_PLACEHOLDER,
    Client,
    Snippet,
    Wanted,
    indented_json,
    known,
    quoted,
)

CONTEXT_TOKENS = 8192
"""Zed wants a number; where the model's is not known, one that every model has room for."""


def _zed(wanted: Wanted) -> tuple[Snippet, ...]:
    model = {
        "name": wanted.model,
        "display_name": f"{wanted.model} (cortexd)",
        "max_tokens": wanted.context or CONTEXT_TOKENS,
        **known(max_output_tokens=wanted.output),
        "capabilities": {
            "tools": True,
            "images": False,
            "parallel_tool_calls": False,
            "prompt_cache_key": False,
        },
    }
    provider = {"api_url": wanted.v1, "available_models": [model]}
    settings = {
        "language_models": {"openai_compatible": {"cortexd": provider}},
        "agent": {"default_model": {"provider": "cortexd", "model": wanted.model}},
    }
    return (Snippet("~/.config/zed/settings.json", "json", indented_json(settings)),)


def _continue(wanted: Wanted) -> tuple[Snippet, ...]:
    limits = known(contextLength=wanted.context, maxTokens=wanted.output)
    lines = [
        "name: cortexd",
        "version: 1.0.0",
        "schema: v1",
        "models:",
        f"  - name: {quoted(f'{wanted.model} (cortexd)')}",
        "    provider: openai",
        f"    model: {quoted(wanted.model)}",
        f"    apiBase: {quoted(wanted.v1)}",
        f"    apiKey: ${{{{ secrets.{wanted.key_variable} }}}}",
        "    roles: [chat, edit, apply]",
        "    capabilities: [tool_use]",
        *(["    defaultCompletionOptions:"] if limits else []),
        *(f"      {name}: {tokens}" for name, tokens in limits.items()),
    ]
    secret = KEY_PLACEHOLDER if wanted.key is None else wanted.key
    return (
        Snippet("~/.continue/config.yaml", "yaml", "\n".join(lines) + "\n"),
        Snippet("~/.continue/.env", "env", f"{wanted.key_variable}={secret}\n"),
    )


CLIENTS = (
    Client(
        "zed",
        "editor; /v1/chat/completions",
        _zed,
        (
            "Zed keeps keys out of its settings: enter yours under Settings, AI, LLM Providers,"
            " cortexd; or start Zed with CORTEXD_API_KEY set.",
            "max_tokens is the model's whole context: Zed shortens conversations by it.",
        ),
    ),
    Client(
        "continue",
        "extension for VS Code and JetBrains; /v1/chat/completions",
        _continue,
    ),
)
