"""What `--url` may be."""

from urllib.parse import urlsplit

ADDRESS_WANTED = "--url takes an address that begins with http:// or https://"


def is_web_address(url: str) -> bool:
    """Whether this is an http:// or https:// address with a host, and a port that can be one."""
    try:
        parts = urlsplit(url)
        has_host = bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and has_host and url.isprintable() and " " not in url
