"""What could go wrong between a request on an endpoint other than chat's and its bound."""

from tests.mutants.layers import COUNTING, NATIVE, SURFACES, UNSEEN, WAITING
from tests.mutants.mutant import of_file

_DIALECTS = "tests/dialects/test_"

MUTANTS = (
    *of_file(
        "cortexd/dialects/forwarding.py",
        _DIALECTS + "fields.py",
        (
            "the operator's list lets through what breaks the bound",
            "(name in extra and name not in NEVER_FORWARDED)",
            "name in extra",
        ),
    ),
    *of_file(
        "cortexd/dialects/json_text.py",
        _DIALECTS + "openai.py",
        (
            "what is said twice goes on as it is",
            "(raw if _keys_in(bytes(raw)) == _keys_in(encoded) else compact)",
            "raw",
        ),
    ),
    *of_file(
        "cortexd/dialects/prompt_size.py",
        _DIALECTS + "prompt_size.py",
        (
            "odd arguments of one call hide what others become",
            "(values if _is_json(arguments) else odd)",
            "values",
        ),
        (
            "messages with calls are taken for plain ones",
            "or not _REMARKABLE_KEYS.isdisjoint(message)",
            "or False",
        ),
        (
            "the name of a tool is paid for once, however often it answers",
            "len(self._results) * self._name_bytes",
            "self._name_bytes",
        ),
        (
            "tools are paid for once, however often a template tells them",
            "_times_told(messages) * sum(map(rendered_bytes, rendered_fields))",
            "sum(map(rendered_bytes, rendered_fields))",
        ),
        (
            "words for the template are paid for once, however many messages there are",
            "len(messages) * sum(map(rendered_bytes, at_each))",
            "sum(map(rendered_bytes, at_each))",
        ),
        (
            "a tool that calls others is not taken for one",
            '        if message.get("role") not in _ROLES_OF_TEXT:',
            '        if message.get("role") not in _ROLES_OF_TEXT and not self._calls:',
        ),
    ),
    *of_file(
        "cortexd/dialects/completions.py",
        _DIALECTS + "completions.py",
        (
            "further prompts get their answers for nothing",
            "choices=per_prompt * len(prompts),",
            "choices=per_prompt,",
        ),
        (
            "the suffix is paid for once",
            "tools_bytes=len(prompts) * beside",
            "tools_bytes=beside",
        ),
        (
            "a completion without a limit has none",
            "output_requested=output_requested(body, OUTPUT_LIMITS) or OUTPUT_TOKENS_DEFAULT,",
            "output_requested=output_requested(body, OUTPUT_LIMITS),",
        ),
        (
            "an echo is let through",
            '    if body.flag("echo"):',
            '    if body.flag("echo") and False:',
        ),
        (
            "only the first prompt is read",
            "text_bytes=sum(sizes)",
            "text_bytes=sizes[0]",
        ),
    ),
    *of_file(
        "cortexd/dialects/responses.py",
        _DIALECTS + "responses.py",
        (
            "what a server remembers is let through",
            "        if name in body.fields:",
            "        if False:",
        ),
        (
            "instructions are free",
            "    if instructions is not None:",
            "    if False:",
        ),
        (
            "hosted tools are let through",
            'if tool.get("type") not in TOOL_TYPES:',
            "if False:",
        ),
        (
            "a reference to a stored item is let through",
            "        if kind not in ITEM_TYPES:",
            "        if False:",
        ),
        (
            "an engine is told the client's own limit",
            '"max_output_tokens": target.output_tokens,',
            '"max_output_tokens": self.asked.output_requested,',
        ),
    ),
    *of_file(
        "cortexd/dialects/responses_stream.py",
        _DIALECTS + "responses_stream.py",
        (
            "a stream beyond its output goes on",
            "        if self._chunks > self._output_max:\n            return True",
            "        if False:\n            return True",
        ),
        (
            "the end is passed on before the settlement",
            '            self.done = True\n            return b""\n        return write_event(data',
            "            self.done = True\n        return write_event(data",
        ),
    ),
    *of_file(
        "cortexd/dialects/rerank.py",
        _DIALECTS + "rerank.py",
        (
            "the query is paid for once",
            "text_bytes=len(documents) * read_bytes(query)",
            "text_bytes=read_bytes(query)",
        ),
    ),
    *of_file(
        "cortexd/dialects/images.py",
        _DIALECTS + "images.py",
        ("further pictures are free", "images * passes * pixels", "passes * pixels"),
        (
            "a negative prompt is free",
            'passes = 2 if body.text("negative_prompt") else 1',
            "passes = 1",
        ),
        (
            "steps are not told to the neuron",
            "        if steps is not None:\n            body",
            "        if False:\n            body",
        ),
        (
            "unknown steps are no reason to refuse",
            "            if capped:",
            "            if False:",
        ),
    ),
    *of_file(
        "cortexd/dialects/speech.py",
        _DIALECTS + "speech.py",
        (
            "speech without a price is served for a cap",
            "if limits.tokens_per_speech_character is None and capped:",
            "if False:",
        ),
    ),
    *of_file(
        "cortexd/dialects/transcriptions.py",
        _DIALECTS + "transcriptions.py",
        (
            "audio without a bound is served for a cap",
            "            if capped:",
            "            if False:",
        ),
    ),
    *of_file(
        "cortexd/gateway/relay.py",
        SURFACES,
        (
            "a path that a neuron lacks is a model that it has lost",
            "progress.was_not_there = status == _NOT_THERE and not progress.lacks_endpoint",
            "progress.was_not_there = status == _NOT_THERE",
        ),
    ),
    *of_file(
        "cortexd/gateway/progress.py",
        SURFACES,
        (
            "another stream than a chat's is taken to promise a token per event",
            "            and attempt.way.surface.token_per_chunk\n",
            "",
        ),
    ),
    *of_file(
        "cortexd/gateway/progress.py",
        NATIVE,
        (
            "a neuron that is spoken to in another dialect is taken to promise what a chat does",
            "attempt.way.surface.token_per_chunk",
            "self._sending.surface.token_per_chunk",
        ),
    ),
    *of_file(
        "cortexd/gateway/sending.py",
        NATIVE,
        (
            "a plain message that no hang-up stops is left to run",
            " or not (self.stream or TRAITS[route.kind].stops_plain)",
            "",
        ),
    ),
    *of_file(
        "cortexd/gateway/counting.py",
        COUNTING,
        (
            "a chat is counted where a message is sent",
            "sending.way_to(route).surface is not sending.surface",
            "False",
        ),
        (
            "the last neuron asked decides what a prompt comes to",
            "most = max(most, tokens)",
            "most = tokens",
        ),
        (
            "what a question has no place for is free",
            "return uncounted_tokens(sending.request.asked.fields, count) is not None",
            "return True",
        ),
    ),
    *of_file(
        "cortexd/gateway/out.py",
        NATIVE,
        (
            "a client that waited is told a second beginning",
            "            watcher.head()  # the client has had one",
            "            pass",
        ),
    ),
    *of_file(
        "cortexd/gateway/sending.py",
        WAITING,
        (
            "a context may grow behind the bound",
            "if known is not None and known.context_max is not None and known.context_max <= most:",
            "if True:",
        ),
    ),
    *of_file(
        "cortexd/gateway/out.py",
        UNSEEN,
        (
            "what waits behind a heartbeat that is not taken is free",
            "self._held, progress.has_unseen = data, True",
            "self._held = data",
        ),
        (
            "what came while nobody looked is free",
            "            self._look_once_more(answer, watcher)\n",
            "",
        ),
        (
            "what a full buffer may hide is free",
            "                looked_at += len(data)\n            self._progress.has_unseen = True",
            "                looked_at += len(data)",
        ),
    ),
    *of_file(
        "cortexd/dialects/anthropic_native_stream.py",
        (NATIVE, _DIALECTS + "anthropic_native.py"),
        (
            "a stream of messages goes on past what is paid for",
            "        if self._chunks > self._output_max:",
            "        if False:",
        ),
        (
            "the beginning of a message is taken for what it used",
            '        self._first_usage = message.get("usage")\n',
            '        self._first_usage = message.get("usage")\n'
            '        self.usage = native_usage({**message["usage"], "input_tokens": 1})\n',
        ),
        (
            "a message that says no more is whole",
            "        if self.failure is None and not self.finished:",
            "        if False:",
        ),
        (
            "the end of a message goes out before it is settled",
            '            self._end = write_named(b"message_delta", **{**told, "usage": usage})\n'
            '        return b""',
            '            self._end = write_named(b"message_delta", **{**told, "usage": usage})\n'
            "        return self._end",
        ),
    ),
    *of_file(
        "cortexd/dialects/anthropic_native.py",
        NATIVE,
        (
            "a neuron is asked for as much as the client wants",
            '"max_tokens": output_tokens,',
            '"max_tokens": max(output_tokens, body.integer("max_tokens", largest=99999) or 0),',
        ),
        ("every field of a message reaches a neuron", "if name in PASSED and (", "if ("),
        (
            "marks around blocks cost nothing",
            "MARK_TOKENS = 32",
            "MARK_TOKENS = 0",
        ),
    ),
)
