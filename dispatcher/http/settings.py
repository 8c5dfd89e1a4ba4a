"""What the HTTP application is told when it is made."""

from collections.abc import Callable
from random import Random, SystemRandom
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from dispatcher.documents import Line, Provider

Role = Literal["send", "read", "admin"]


class Key(Struct, frozen=True):
    """One bearer key, its secret already resolved. `line`: the only line it may send for.

    Roles: `send` posts triggers and reads messages; `read` may GET everything; `admin` may do everything.
    """

    name: str
    key: str
    roles: tuple[Role, ...] = ("send",)
    line: str | None = None

    def __repr__(self) -> str:
        """The secret stays out of logs and errors."""
        return f"Key(name={self.name!r}, roles={self.roles!r}, line={self.line!r})"


def _all_well(_: Provider | Line) -> list[tuple[str, str]]:
    return []


class Settings(Struct, frozen=True):
    """Limits and outside knowledge. `check_provider` says `(path, message)` for options a provider's kind refuses,
    `check_line` for a webhook that cannot be used."""

    keys: tuple[Key, ...] = ()
    region: str = "CN"  # of phone numbers without a country code
    stream_patience_s: Annotated[float, Meta(ge=0)] = 30.0
    max_streams: Annotated[int, Meta(ge=1)] = 256  # at once
    stream_triggers: Annotated[int, Meta(ge=1)] = 8_192  # in flight, per stream
    stream_bytes: Annotated[int, Meta(ge=1)] = 2 * 1024 * 1024  # in flight, per stream
    group_orders: Annotated[int, Meta(ge=1)] = 800  # at most so many orders a submit
    read_bytes: Annotated[int, Meta(ge=4096)] = 256 * 1024  # what aiohttp buffers of a request's body
    body_bytes: Annotated[int, Meta(ge=4096)] = 66 * 1024 * 1024  # 1,000 triggers of 64 KiB and what stands between
    document_bytes: Annotated[int, Meta(ge=4096)] = 32 * 1024 * 1024  # of the catalog: a keyword list may be long
    public_url: str = ""  # where vendors reach this server; empty: wherever a caller of the catalog does
    drain_poll_s: Annotated[float, Meta(gt=0)] = 0.25
    check_provider: Callable[[Provider], list[tuple[str, str]]] = _all_well
    check_line: Callable[[Line], list[tuple[str, str]]] = _all_well
    chance: Random = msgspec.field(default_factory=SystemRandom)  # for ids and callback secrets
