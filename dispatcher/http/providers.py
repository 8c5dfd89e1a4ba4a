"""What is special about providers in the catalog: masked secrets, callback addresses, live health."""

from random import Random
from typing import Any, Final
from urllib.parse import quote

import msgspec

from dispatcher.documents import Provider
from dispatcher.http.ports import Operations

MASK: Final = "***"
#: Fields a GET adds; a PUT passes over them, so that what was read can be written back.
READ_ONLY: Final = ("reports_url", "uplinks_url", "health")
_CALLBACK_SECRET: Final = "callback_secret"
_SECRET_ENDINGS: Final = ("secret", "password", "token", "key", "service_account", "system_id")
_REFERENCES: Final = ("env:", "file:")
_NO_SECRETS: Final = frozenset({_CALLBACK_SECRET})


def without_read_only(body: bytes) -> bytes:
    """The document without what a GET added to it. Raises msgspec errors."""
    if not any(name.encode() in body for name in READ_ONLY):
        return body
    document = msgspec.json.decode(body)
    if isinstance(document, dict):
        for name in READ_ONLY:
            document.pop(name, None)
    return msgspec.json.encode(document)


def check_masks(provider: Provider) -> list[tuple[str, str]]:
    """A masked value that comes back is no value."""
    return [
        (f"options.{name}", "this is the mask of a secret; give the secret as env:NAME or file:NAME")
        for name, value in provider.options.items()
        if value == MASK
    ]


def with_callback_secret(provider: Provider, before: bytes | None, chance: Random) -> Provider:
    """The provider with a secret for its callback addresses: its own, the one it had, or a new one."""
    if provider.options.get(_CALLBACK_SECRET):
        return provider
    kept = msgspec.json.decode(before)["options"].get(_CALLBACK_SECRET) if before else None
    secret = kept or f"{chance.getrandbits(128):032x}"
    return msgspec.structs.replace(provider, options={**provider.options, _CALLBACK_SECRET: secret})


def masked(document: dict[str, Any]) -> dict[str, Any]:
    """The document as people may see it. References to secrets are no secrets."""
    options = document.get("options") or {}
    return {**document, "options": {name: _shown(name, value) for name, value in options.items()}}


def _shown(name: str, value: Any) -> Any:
    if name in _NO_SECRETS or not name.endswith(_SECRET_ENDINGS) or isinstance(value, bool) or value is None:
        return value
    return value if isinstance(value, str) and value.startswith(_REFERENCES) else MASK


async def described(id_: str, doc: bytes, operations: Operations, base: str) -> dict[str, Any]:
    """The provider with its callback addresses, which begin with `base`, and its live health. A secret that is a
    reference is not shown in them."""
    document = masked(msgspec.json.decode(doc))
    secret = document["options"].get(_CALLBACK_SECRET)
    for name in ("reports", "uplinks"):
        document[f"{name}_url"] = f"{base}/v1/{name}/{quote(id_, safe='')}/{_in_path(secret)}" if secret else None
    document["health"] = await operations.provider_health(id_)
    return document


def _in_path(secret: Any) -> str:
    text = str(secret)
    return MASK if text.startswith(_REFERENCES) else quote(text, safe="")
