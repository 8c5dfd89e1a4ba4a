"""The bytes in front of a request's body, and where they go."""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Final, NamedTuple
from urllib.parse import SplitResult, urlsplit

from channels.adapter import Request

_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VISIBLE: Final = re.compile(r"[!-~]+")
#: How a request is framed, and what becomes of its connection, is the transport's to say.
_OURS: Final = frozenset(
    {"connection", "content-length", "expect", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"}
)
_PORTS: Final = {"http": 80, "https": 443}


class Origin(NamedTuple):
    """What a connection is to; `host` has no brackets."""

    tls: bool
    host: str
    port: int


def head_of(request: Request) -> tuple[Origin, bytes]:
    """A request's line and headers, the empty line included. Raises ValueError, whose text never tells the URL."""
    headers = request.headers
    origin, form, lines = _form(request.method, request.url, tuple(headers))
    head = form % (*headers.values(), len(request.body))
    if head.count("\r") != lines or head.count("\n") != lines or "\0" in head:
        raise ValueError("a header holds a line break or a zero byte")
    return origin, head.encode()


@lru_cache(maxsize=1024)
def _form(method: str, url: str, names: Sequence[str]) -> tuple[Origin, str, int]:
    """The head with a `%s` for each header's value and a `%d` for the body's length, and how many lines it has."""
    if not _TOKEN.fullmatch(method) or method == "CONNECT":
        raise ValueError("the method cannot be used")
    lower = {name.lower() for name in names}
    if not all(map(_TOKEN.fullmatch, names)) or lower & _OURS:
        raise ValueError("a header's name cannot be used")
    origin, split = _split(url)
    path = f"{split.path or '/'}?{split.query}" if split.query else split.path or "/"
    lines = [f"{method} {path} HTTP/1.1"]
    if "host" not in lower:
        lines.append(f"Host: {_host(origin)}")
    fixed = [line.replace("%", "%%") for line in lines]
    named = [f"{name.replace('%', '%%')}: %s" for name in names]
    form = "\r\n".join([*fixed, *named, "Content-Length: %d", "", ""])
    return origin, form, form.count("\n")


def _split(url: str) -> tuple[Origin, SplitResult]:
    try:
        split = urlsplit(url)
        host, port = split.hostname, split.port
    except ValueError:  # its text may hold a part of the URL
        raise ValueError("the URL cannot be used") from None
    if not _VISIBLE.fullmatch(url) or split.scheme not in _PORTS or not host or port == 0:
        raise ValueError("the URL cannot be used")
    if split.username is not None:
        raise ValueError("the URL carries credentials")
    return Origin(split.scheme == "https", host, port or _PORTS[split.scheme]), split


def _host(origin: Origin) -> str:
    name = f"[{origin.host.partition('%')[0]}]" if ":" in origin.host else origin.host
    return name if origin.port == _PORTS["https" if origin.tls else "http"] else f"{name}:{origin.port}"
