"""What a model's chat template adds, as settled requests show it.

Owns the judgement of what may be learned: it is remembered for the model, and reserved for all keys
from then on. Refuses to know where it is kept (ledger/desk.py).
"""

from cortexd.dialects.asked import Asked
from cortexd.dialects.upper_bound import Bound, ModelLimits
from cortexd.dialects.usage import Ending

TEMPLATE_TOKENS_MAX = 16_384
"""Most template tokens that are learned for a model by itself; the catalogue may say more."""

BESIDE_TOOLS_TOKENS_MAX = 1024
"""The same of prompts with tools: more than templates say of how to call one."""


def added_by_template(
    asked: Asked, limits: ModelLimits, ceiling: Bound, ending: Ending | None
) -> int:
    """What a template was seen to add, if that is more than the bytes of its prompts pay for.

    `limits` and `ceiling`: what the request was bounded by. Only text tells; an image costs what it
    costs. A neuron that claims more than any template adds is not believed: it would lock the
    model. What comes with tools is told in words of the client's as well, so that less of it is
    learned.
    """
    usage = ending.usage if ending is not None else None
    if usage is None or asked.prompt.has_media or not (asked.prompts and asked.teaches):
        return 0
    beyond = usage.prompt_tokens - ceiling.prompt_tokens
    added = limits.template_tokens - (-beyond // asked.prompts)
    most = BESIDE_TOOLS_TOKENS_MAX if asked.prompt.tools_bytes else TEMPLATE_TOKENS_MAX
    return added if beyond > 0 and added <= most else 0
