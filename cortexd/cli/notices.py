"""What a configuration that can be run probably does not mean: for those who start or check it."""

from cortexd.config.load import Loaded
from cortexd.dialects.fields import NEVER_FORWARDED


def notices_of(loaded: Loaded) -> tuple[str, ...]:
    """One sentence each. The configuration's own, and what it cannot know: the fields of bodies."""
    never = [name for name in loaded.config.gateway.forward_fields if name in NEVER_FORWARDED]
    about_fields = (
        f"gateway.forward_fields has {name}, which is never forwarded: it breaks the bound of a cap"
        for name in never
    )
    return (*loaded.notices, *about_fields)
