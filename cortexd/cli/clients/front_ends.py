"""Programs with a page or a voice: Open WebUI and Home Assistant."""

from cortexd.cli.clients.snippet import Client, Snippet, Wanted, quoted

_BACKGROUND_CALLS = (
    "ENABLE_TITLE_GENERATION",
    "ENABLE_TAGS_GENERATION",
    "ENABLE_FOLLOW_UP_GENERATION",
    "ENABLE_AUTOCOMPLETE_GENERATION",
)
"""What Open WebUI asks for unseen, each at the price of a request."""


def _open_webui(wanted: Wanted) -> tuple[Snippet, ...]:
    lines = [
        f"OPENAI_API_BASE_URL={wanted.v1}",
        f"OPENAI_API_KEY={wanted.written_key}",
        f"DEFAULT_MODELS={wanted.model}",
        "ENABLE_OLLAMA_API=False",
        *(f"{name}=False" for name in _BACKGROUND_CALLS),
    ]
    where = "an environment file, as for docker run --env-file"
    return (Snippet(where, "env", "\n".join(lines) + "\n"),)


def _home_assistant(wanted: Wanted) -> tuple[Snippet, ...]:
    fields = [
        f"Server URL: {quoted(wanted.v1)}",
        f"API key: {quoted(wanted.written_key)}",
        f"Model: {quoted(wanted.model)}",
    ]
    sensor = [
        "rest:",
        f"  - resource: {quoted(f'{wanted.v1}/budget')}",
        "    headers:",
        "      Authorization: !secret cortexd_authorization",
        "    scan_interval: 60",
        "    sensor:",
        '      - name: "cortexd tokens left"',
        '        value_template: "{{ value_json.available }}"',
        '        unit_of_measurement: "tokens"',
    ]
    secret = f"cortexd_authorization: {quoted(f'Bearer {wanted.written_key}')}"
    return (
        Snippet("the forms of the integration Local OpenAI LLM", "yaml", _lines(fields)),
        Snippet("configuration.yaml, to see what is left", "yaml", _lines(sensor)),
        Snippet("secrets.yaml, for the sensor", "yaml", f"{secret}\n"),
    )


def _lines(lines: list[str]) -> str:
    return "\n".join(lines) + "\n"


CLIENTS = (
    Client(
        "open-webui",
        "chat page for several people; /v1/chat/completions",
        _open_webui,
        (
            "From within a container 127.0.0.1 is the container: give --url an address of the"
            " host.",
            "Open WebUI keeps these settings in its database after the first start: later changes"
            " are made under Admin Panel, Settings, Connections and Interface.",
        ),
    ),
    Client(
        "home-assistant",
        "conversation agent, over a custom integration; /v1/chat/completions",
        _home_assistant,
        (
            "Home Assistant's own OpenAI integration takes no other address; Local OpenAI LLM"
            " comes from HACS.",
        ),
    ),
)
