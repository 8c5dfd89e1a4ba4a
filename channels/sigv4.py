"""AWS Signature Version 4 of a request whose body is at hand.

Source: docs.aws.amazon.com, IAM user guide, "Create a signed AWS API request"; design page `wire.md`, section 5.
"""

import time
from collections.abc import Mapping
from hashlib import sha256
from hmac import digest
from typing import Final
from urllib.parse import quote, urlsplit

from msgspec import Struct

from channels.secret import Secret

_ALGORITHM: Final = "AWS4-HMAC-SHA256"
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


class Keys(Struct, frozen=True):
    """An access key; `session_token` is there when it is a temporary one."""

    id: str
    secret: Secret
    session_token: Secret | None = None


class Service(Struct, frozen=True):
    """What a signature is good for: `name` is the service's signing name."""

    name: str
    region: str


def signed(
    method: str, url: str, headers: Mapping[str, str], body: bytes, keys: Keys, service: Service, now_s: float
) -> dict[str, str]:
    """The headers, names in lower case, with those that sign all of them, the URL and the body."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now_s))
    all_ = {**headers, "host": host_of(url), "x-amz-date": stamp}
    if keys.session_token is not None:
        all_["x-amz-security-token"] = keys.session_token.reveal()
    names = ";".join(sorted(all_))
    scope = f"{stamp[:8]}/{service.region}/{service.name}/aws4_request"
    hashed = sha256(canonical_request(method, url, all_, body).encode()).hexdigest()
    signature = digest(_signing_key(keys, scope), f"{_ALGORITHM}\n{stamp}\n{scope}\n{hashed}".encode(), "sha256").hex()
    all_["authorization"] = f"{_ALGORITHM} Credential={keys.id}/{scope}, SignedHeaders={names}, Signature={signature}"
    return all_


def canonical_request(method: str, url: str, headers: Mapping[str, str], body: bytes) -> str:
    """What is signed; the path is encoded once more, as for every service but S3."""
    split = urlsplit(url)
    path = quote(split.path or "/", safe="/~")
    query = "&".join("=".join(pair) for pair in sorted(_pair(part) for part in split.query.split("&") if part))
    lines = [f"{name}:{' '.join(headers[name].split())}" for name in sorted(headers)]
    names = ";".join(sorted(headers))
    return "\n".join([method, path, query, *lines, "", names, sha256(body).hexdigest()])


def _pair(part: str) -> tuple[str, str]:
    name, _, value = part.partition("=")
    return name, value


def _signing_key(keys: Keys, scope: str) -> bytes:
    key = b"AWS4" + keys.secret.reveal().encode()
    for part in scope.split("/"):
        key = digest(key, part.encode(), "sha256")
    return key


def host_of(url: str) -> str:
    """The `host` header of a request to this URL: with the port where it is not the default."""
    split = urlsplit(url)
    host = split.hostname or ""
    host = f"[{host}]" if ":" in host else host
    return host if split.port in (None, _DEFAULT_PORTS.get(split.scheme)) else f"{host}:{split.port}"
