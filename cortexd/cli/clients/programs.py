"""Programs of one's own: OpenAI's and Anthropic's Python packages, LangChain, and curl."""

import json
import shlex

from cortexd.cli.clients.snippet import Client, Snippet, Wanted, python_key, quoted, shell_key

_TEXT = "What is a token?"


def _openai_python(wanted: Wanted) -> tuple[Snippet, ...]:
    imports, key = python_key(wanted)
    text = f"""\
{imports}from openai import OpenAI

client = OpenAI(
    base_url={quoted(wanted.v1)},
    api_key={key},
)
stream = client.chat.completions.create(
    model={quoted(wanted.model)},
    messages=[{{"role": "user", "content": {quoted(_TEXT)}}}],
    max_tokens=200,
    stream=True,
)
for chunk in stream:
    for choice in chunk.choices:
        print(choice.delta.content or "", end="", flush=True)
print()
"""
    return (Snippet("a Python program (pip install openai)", "python", text),)


def _anthropic_python(wanted: Wanted) -> tuple[Snippet, ...]:
    imports, key = python_key(wanted)
    text = f"""\
{imports}from anthropic import Anthropic

client = Anthropic(
    base_url={quoted(wanted.root)},
    api_key={key},
)
with client.messages.stream(
    model={quoted(wanted.model)},
    messages=[{{"role": "user", "content": {quoted(_TEXT)}}}],
    max_tokens=200,
) as stream:
    for text in stream.text_stream:
        print(text, end="", flush=True)
print()
"""
    return (Snippet("a Python program (pip install anthropic)", "python", text),)


def _langchain(wanted: Wanted) -> tuple[Snippet, ...]:
    imports, key = python_key(wanted)
    text = f"""\
{imports}from langchain_openai import ChatOpenAI

model = ChatOpenAI(
    base_url={quoted(wanted.v1)},
    api_key={key},
    model={quoted(wanted.model)},
    max_tokens=200,
)
for chunk in model.stream({quoted(_TEXT)}):
    print(chunk.text, end="", flush=True)
print()
"""
    return (Snippet("a Python program (pip install langchain-openai)", "python", text),)


def _curl(wanted: Wanted) -> tuple[Snippet, ...]:
    message = {"role": "user", "content": _TEXT}
    asked = {"model": wanted.model, "max_tokens": 200, "stream": True, "messages": [message]}
    bearer = f"'Authorization: Bearer '{shell_key(wanted)}"
    text = f"""\
curl --no-buffer --fail-with-body {shlex.quote(f"{wanted.v1}/chat/completions")} \\
  --header {bearer} \\
  --header 'Content-Type: application/json' \\
  --data {shlex.quote(json.dumps(asked, ensure_ascii=False))}
curl --fail-with-body {shlex.quote(f"{wanted.v1}/budget")} \\
  --header {bearer}
"""
    return (Snippet("a shell", "sh", text),)


CLIENTS = (
    Client("openai-python", "OpenAI's package for Python, 2.x and 3.x", _openai_python),
    Client("anthropic-python", "Anthropic's package for Python, 0.x to 2.x", _anthropic_python),
    Client("langchain", "LangChain, by langchain-openai", _langchain),
    Client("curl", "one chat, streamed, and what is left of the budget", _curl),
)
