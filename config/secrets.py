"""Which values are secrets, how they are shown, and the callers' keys behind their references."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from channels.secret import Unresolved, is_reference, resolve
from config.errors import ConfigError
from config.schema import HttpKey
from dispatcher.http.settings import Key

MASK: Final = "***"
_NAME: Final = re.compile(r"(secret|password|passwd|token|auth|aes_key|(^|[._])key|service_account)$", re.IGNORECASE)
_PASSWORD: Final = re.compile(r"(?P<before>[a-z][a-z0-9+.-]*://[^/@\s:]*:)[^/\s]*(?=@)", re.IGNORECASE)


def resolve_keys(keys: Sequence[HttpKey], environ: Mapping[str, str]) -> tuple[Key, ...]:
    """The callers with the secrets their references lead to. Raises ConfigError for one that leads nowhere."""
    found: dict[str, Key] = {}
    for i, key in enumerate(keys):
        path = f"http.keys[{i}].key"
        try:
            secret = resolve(key.key, environ)
        except Unresolved as error:
            raise ConfigError(path, str(error)) from None
        if secret in found:
            raise ConfigError(path, f'the key "{found[secret].name}" has the same secret')
        found[secret] = Key(key.name, secret, key.roles, key.line)
    return tuple(found.values())


def is_secret(path: str) -> bool:
    """Whether the value at this path may be or hold a secret, so that no message repeats it."""
    return path == "redis.url" or _NAME.search(path) is not None


def masked(path: str, value: Any) -> Any:
    """The value with every secret in it replaced. A reference (`env:`, `file:`) is no secret."""
    if isinstance(value, dict):
        return {key: masked(f"{path}.{key}", inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [masked(path, inner) for inner in value]
    if not isinstance(value, str) or not value or is_reference(value):
        return value
    if path != "redis.url" and is_secret(path):
        return MASK
    return _PASSWORD.sub(rf"\g<before>{MASK}", value)
