"""What every actor's process has: its log lines, its counts and their port, its connection to the store."""

import gc
import logging
import os
import socket
import sys
import time
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from msgspec import Struct

from actors.exposition import expose, registry_of
from actors.tally import Tally
from config.schema import Config
from dispatcher.store.connection import Connection, connect, count_start

LOG_FORMAT: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_log = logging.getLogger(__name__)
_encoder: Final = msgspec.msgpack.Encoder()


class Spec(Struct, frozen=True):
    """What an actor is started with. `name` is its own, `run` identifies this start of the whole system."""

    role: str
    name: str
    number: int
    run: str
    redis_url: str
    config: Config
    provider: str = ""

    def __repr__(self) -> str:
        """The configuration and the URL may hold secrets."""
        return f"Spec({self.name!r})"


spec_encoder: Final = msgspec.msgpack.Encoder()
spec_decoder: Final = msgspec.msgpack.Decoder(Spec)


class JsonLines(logging.Formatter):
    """One JSON object a line, for log collectors."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "at": datetime.fromtimestamp(record.created, UTC),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line).decode()


def write_log(level: str, format_: str = "text") -> None:
    """Send this process's log lines to stderr."""
    logging.basicConfig(stream=sys.stderr, level=level.upper(), format=LOG_FORMAT, force=True)
    if format_ == "json":
        logging.getLogger().handlers[0].setFormatter(JsonLines())


def wall_ms() -> int:
    """The shard's clock: epoch milliseconds, UTC."""
    return time.time_ns() // 1_000_000


def spare_the_collector() -> None:
    """What lives for the process's whole life is looked at no more, and the rest less often: nothing on the hot path
    makes cycles, and a young collection for every 700 objects cost a tenth of a shard's time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


class Host:
    """One actor's process: `open` it before use."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.tally = Tally()
        self.registry = registry_of(self.tally)
        self.redis: Connection = connect(spec.redis_url)
        self.metrics_port = 0
        self.starts = 0
        write_log(spec.config.log.level, spec.config.log.format)

    async def open(self) -> None:
        """Serve the counts; note this start."""
        spare_the_collector()
        self.metrics_port = expose(self.registry, self.spec.config.metrics.host)
        self.starts = await count_start(self.redis, self.spec.run, self.spec.name)
        if self.starts > 1:
            _log.warning("%s died and is back (start %d)", self.spec.name, self.starts)

    async def close(self) -> None:
        """Give the store's connections back."""
        await self.redis.aclose()

    def describe(self, **more: Any) -> bytes:
        """This actor as `/v1/topology` and `/v1/targets` show it."""
        spec = self.spec
        about = {
            "name": spec.name,
            "role": spec.role,
            "pid": os.getpid(),
            "node": socket.gethostname(),
            "restarts": max(self.starts - 1, 0),
            "metrics": f"{spec.config.metrics.host}:{self.metrics_port}",
        }
        return _encoder.encode(about | more)
