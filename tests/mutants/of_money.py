"""What could go wrong between an ending and its charge, and between a request and its bound."""

from tests.mutants.layers import BOUND, CHARGING, FOUND, LIVES
from tests.mutants.mutant import of_file

MUTANTS = (
    *of_file(
        "cortexd/ledger/charging.py",
        (CHARGING, FOUND),
        (
            "what a neuron worked on in silence is free",
            'return _charge(bound, bound.total, bound.prompt_tokens, "unknown")',
            "return _NOTHING",
        ),
        (
            "a broken count is believed over what was seen",
            "max(usage.completion_tokens, ending.seen.chunks)",
            "usage.completion_tokens",
        ),
        (
            "one choice's count pays for all",
            "if bound.choices > 1 and not ending.counts_every_choice:",
            "if False:",
        ),
        (
            "an answer without a count is charged what was seen",
            'return _in_full(bound, ending, "unmetered")',
            'return _broken_off(bound, ending, "unmetered")',
        ),
        (
            "an answer that ran past its output is charged what was seen",
            'return _in_full(bound, ending, "cut")',
            'return _broken_off(bound, ending, "cut")',
        ),
        (
            "chunks of several tokens count as one each",
            "if not (ending.streamed and ending.token_per_chunk):",
            "if not ending.streamed:",
        ),
        (
            "tokens in flight are free",
            " + IN_FLIGHT_TOKENS * bound.choices",
            "",
        ),
        (
            "tokens in flight count for one choice only",
            "IN_FLIGHT_TOKENS * bound.choices",
            "IN_FLIGHT_TOKENS",
        ),
        (
            "a report beyond the reservation is clamped",
            "tokens = max(min(tokens, bound.total), _reported_total(ending))",
            "tokens = min(tokens, bound.total)",
        ),
        (
            "a count of nothing is believed beside what was seen",
            "    if usage is not None and not usage.completion_tokens and",
            "    if False and",
        ),
        (
            "an overrun is not reported",
            "overrun=max(0, tokens - bound.total)",
            "overrun=0",
        ),
    ),
    *of_file(
        "cortexd/ledger/charging.py",
        LIVES,
        (
            "a client that hangs up pays nothing",
            'return _broken_off(bound, ending, "abort")',
            "return _NOTHING",
        ),
        ("a dispatched request is released", "if not dispatched:", "if dispatched:"),
    ),
    *of_file(
        "cortexd/dialects/upper_bound.py",
        BOUND,
        (
            "further choices are not reserved",
            "self.prompt_tokens + self.choices * self.output_tokens",
            "self.prompt_tokens + self.output_tokens",
        ),
        (
            "tools are not part of the prompt",
            "prompt.text_bytes + prompt.tools_bytes + asked.prompts * limits.template_tokens",
            "prompt.text_bytes + asked.prompts * limits.template_tokens",
        ),
        (
            "the chat template is not part of the prompt",
            "prompt.text_bytes + prompt.tools_bytes + asked.prompts * limits.template_tokens",
            "prompt.text_bytes + prompt.tools_bytes",
        ),
        (
            "a prompt is bounded by its average, not by its bytes",
            "prompt.text_bytes + prompt.tools_bytes",
            "(prompt.text_bytes + prompt.tools_bytes) // 4",
        ),
        (
            "media without a ceiling is free for a capped key",
            "    if unbounded and capped:\n        return _unbounded_media",
            "    if False:\n        return _unbounded_media",
        ),
        (
            "only the first image counts",
            "sum(count * tokens_max for _, count, tokens_max in media if tokens_max)",
            "sum(tokens_max for _, count, tokens_max in media if count and tokens_max)",
        ),
        (
            "a prompt is bounded by the smallest context",
            "else asked.prompts * limits.context_max",
            "else asked.prompts * (limits.context_min or limits.context_max)",
        ),
        (
            "the model's own output limit is forgotten",
            "    if largest is not None and largest < output_tokens:",
            "    if False:",
        ),
        (
            "no output at all can be reserved",
            "return max(1, output_tokens)",
            "return output_tokens",
        ),
    ),
)
