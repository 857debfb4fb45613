"""Words of others, made safe for a terminal.

Owns the escaping of what neurons and servers call their models and say of themselves. JSON is
printed as it is: it escapes for itself, and goes to programs.
"""


def printable(text: str) -> str:
    """The text with what moves the cursor, rings or turns the direction of writing as `\\u001b`."""
    return "".join(each if each.isprintable() else f"\\u{ord(each):04x}" for each in text)
