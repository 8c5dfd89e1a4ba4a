"""Who may do what: bearer keys with roles.

`admin` may do everything. `read` may GET everything under `/v1`. `send` may post triggers and read messages.
Without keys everybody may do everything; that such a server listens on loopback only is its host's care.
"""

from collections.abc import Iterable
from hashlib import sha256
from hmac import compare_digest
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Middleware

from dispatcher.http.problem import Handler, Problem
from dispatcher.http.settings import Key

ANONYMOUS: Final = "anonymous"
CALLER: Final = web.RequestKey("caller", Key)
#: Vendors call these; the secret in the path is their key.
CALLBACKS: Final = ("/v1/reports/", "/v1/uplinks/")


class Keyring:
    """Finds the key a caller presents, in a time that says nothing about the others."""

    def __init__(self, keys: Iterable[Key]) -> None:
        self._keys = [(sha256(key.key.encode()).digest(), key) for key in keys]

    def __bool__(self) -> bool:
        return bool(self._keys)

    def find(self, presented: str) -> Key | None:
        """The key with this secret. Digests are compared, all of them: neither content, length nor place leaks."""
        digest = sha256(presented.encode("utf-8", "surrogateescape")).digest()
        found = None
        for known, key in self._keys:
            if compare_digest(known, digest):
                found = key
        return found


def allows(key: Key, method: str, path: str) -> bool:
    """Whether the key's roles cover this call."""
    if "admin" in key.roles:
        return True
    reads = method in ("GET", "HEAD")
    if reads and "read" in key.roles:
        return True
    if "send" not in key.roles:
        return False
    return path == "/v1/triggers" or (reads and path.startswith("/v1/messages/"))


def authentication(keys: Iterable[Key]) -> Middleware:
    """The middleware that lets callers in."""
    ring = Keyring(keys)

    @web.middleware
    async def authenticate(request: web.Request, handler: Handler) -> web.StreamResponse:
        if ring and request.path.startswith("/v1/") and not request.path.startswith(CALLBACKS):
            request[CALLER] = _admit(ring, request)
        return await handler(request)

    return authenticate


def _admit(ring: Keyring, request: web.Request) -> Key:
    scheme, _, presented = request.headers.get("Authorization", "").partition(" ")
    key = ring.find(presented.strip()) if scheme.lower() == "bearer" else None
    if key is None:
        raise Problem(401, "a bearer key is needed", headers={"WWW-Authenticate": 'Bearer realm="dispatcher"'})
    if not allows(key, request.method, request.path):
        raise Problem(403, f"the key {key.name!r} has no role for this")
    return key


def who_of(request: web.Request) -> str:
    """The name under which a change is remembered."""
    return request[CALLER].name if CALLER in request else ANONYMOUS


def line_of(request: web.Request) -> str | None:
    """The only line the caller may send for."""
    return request[CALLER].line if CALLER in request else None
