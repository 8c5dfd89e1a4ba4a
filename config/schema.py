"""Every key of the configuration: its type, its bounds and its default.

`config/default.toml` says the same for people; a test compares the two.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from msgspec import Meta, Struct

from dispatcher.http.settings import Role
from dispatcher.trigger import Id

Count = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(gt=0)]
Port = Annotated[int, Meta(ge=0, le=65_535)]
#: One document of the catalog, as written; `config.seeds` checks and types it.
Document = dict[str, Any]

#: The keys whose values are documents that seed the catalog, not settings.
SEEDED: Final = ("templates", "lines", "rules", "providers", "routes", "keywords")
#: Fields of `Config` that are not keys.
NOT_KEYS: Final = ("origins",)


class HttpKey(Struct, frozen=True, forbid_unknown_fields=True):
    """One caller: `key` is `env:NAME` or `file:NAME`, never the secret itself."""

    name: Id
    key: str
    roles: Annotated[tuple[Role, ...], Meta(min_length=1)] = ("send",)
    line: Id | None = None


class Http(Struct, frozen=True, forbid_unknown_fields=True):
    host: str = "127.0.0.1"
    port: Port = 8080
    keys: list[HttpKey] = []
    stream_patience_s: Seconds = 30.0
    max_streams: Count = 256
    public_url: Annotated[str, Meta(pattern=r"^(https?://[^/?#]+(/[^?#]*)?)?$")] = ""


class RedisServer(Struct, frozen=True, forbid_unknown_fields=True):
    url: str = ""

    def __repr__(self) -> str:
        """The URL may hold a password, so it stays out of logs and errors."""
        return "RedisServer(...)"


class RayCluster(Struct, frozen=True, forbid_unknown_fields=True):
    address: str = ""


class Outbox(Struct, frozen=True, forbid_unknown_fields=True):
    max_messages: Count = 100_000
    max_parked: Count = 1_000_000


class Window(Struct, frozen=True, forbid_unknown_fields=True):
    urgent: Count = 4_000
    normal: Count = 8_000
    bulk: Count = 4_000


class Idempotency(Struct, frozen=True, forbid_unknown_fields=True):
    window_s: Seconds = 86_400.0
    max_triggers: Annotated[int, Meta(ge=16)] = 4_096


class DeadLetters(Struct, frozen=True, forbid_unknown_fields=True):
    max_per_partition: Count = 10_000
    keep_s: Seconds = 604_800.0


class Reports(Struct, frozen=True, forbid_unknown_fields=True):
    keep_s: Seconds = 259_200.0


class Profiles(Struct, frozen=True, forbid_unknown_fields=True):
    cache_users: Count = 200_000


class Snapshot(Struct, frozen=True, forbid_unknown_fields=True):
    every_s: Seconds = 300.0
    entries: Count = 2_000
    slice_users: Count = 1_000


class Metrics(Struct, frozen=True, forbid_unknown_fields=True):
    host: str = "127.0.0.1"


class Log(Struct, frozen=True, forbid_unknown_fields=True):
    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["text", "json"] = "text"


class Links(Struct, frozen=True, forbid_unknown_fields=True):
    domain: str = ""


class Config(Struct, frozen=True, forbid_unknown_fields=True):
    """The effective configuration. `origins` tells for each dotted path where its value came from."""

    data_dir: Annotated[str, Meta(min_length=1)] = "data"
    timezone: str = "Asia/Shanghai"
    region: str = "CN"
    partitions: Annotated[int, Meta(ge=1, le=1_024)] = 64
    shards: Count = 1
    routers: Count = 1
    gateways: Count = 2
    durability: Literal["everysec", "fsync"] = "everysec"
    drain_s: Seconds = 30.0
    http: Http = Http()
    redis: RedisServer = RedisServer()
    ray: RayCluster = RayCluster()
    outbox: Outbox = Outbox()
    window: Window = Window()
    idempotency: Idempotency = Idempotency()
    dead_letters: DeadLetters = DeadLetters()
    reports: Reports = Reports()
    profiles: Profiles = Profiles()
    snapshot: Snapshot = Snapshot()
    metrics: Metrics = Metrics()
    log: Log = Log()
    links: Links = Links()
    templates: dict[str, Document] = {}
    lines: dict[str, Document] = {}
    rules: list[Document] = []
    providers: dict[str, Document] = {}
    routes: list[Document] = []
    keywords: dict[str, Document] = {}
    origins: Mapping[str, str] = {}
