"""Which values are secrets, and how they are shown."""

import re
from typing import Any, Final

MASK: Final = "***"
_NAME: Final = re.compile(r"(secret|password|passwd|token|auth|aes_key|(^|[._])key|service_account)$", re.IGNORECASE)
_PASSWORD: Final = re.compile(r"(?P<before>[a-z][a-z0-9+.-]*://[^/@\s:]*:)[^/\s]*(?=@)", re.IGNORECASE)
_REFERENCES: Final = ("env:", "file:")


def is_secret(path: str) -> bool:
    """Whether the value at this path may be or hold a secret, so that no message repeats it."""
    return path == "redis.url" or _NAME.search(path) is not None


def masked(path: str, value: Any) -> Any:
    """The value with every secret in it replaced. A reference (`env:`, `file:`) is no secret."""
    if isinstance(value, dict):
        return {key: masked(f"{path}.{key}", inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [masked(path, inner) for inner in value]
    if not isinstance(value, str) or not value or value.startswith(_REFERENCES):
        return value
    if path != "redis.url" and is_secret(path):
        return MASK
    return _PASSWORD.sub(rf"\g<before>{MASK}", value)
