"""What every actor's process has: its log lines and what it says of itself."""

import asyncio
import gc
import json
import logging
import os
import sys
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from actors.host import Host, JsonLines, Spec, spec_decoder, spec_encoder, write_log
from config.load import load
from config.schema import Config
from tests.servers import started
from tests.support import run


@pytest.fixture(autouse=True)
def _process_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level, threshold = list(root.handlers), root.level, gc.get_threshold()
    yield
    gc.set_threshold(*threshold)
    gc.unfreeze()
    root.handlers[:] = handlers
    root.setLevel(level)


def spec(**more: Any) -> Spec:
    values: dict[str, Any] = {"role": "shard", "name": "shard:0", "number": 0, "run": "r1", "redis_url": "redis://x"}
    return Spec(**(values | {"config": Config()} | more))


def line_of(record: logging.LogRecord) -> dict[str, Any]:
    text = JsonLines().format(record)
    assert "\n" not in text
    found: dict[str, Any] = json.loads(text)
    return found


def test_a_log_line_is_one_json_object() -> None:
    record = logging.LogRecord("actors.pump", logging.WARNING, "f", 1, 'two\nlines, "%s" 中', ("quoted",), None)
    line = line_of(record)
    assert (line["level"], line["logger"], line["message"]) == ("warning", "actors.pump", 'two\nlines, "quoted" 中')
    at = datetime.fromisoformat(line["at"])
    assert at == datetime.fromtimestamp(record.created, UTC)
    assert set(line) == {"at", "level", "logger", "message"}


def test_an_error_carries_its_traceback_on_the_same_line() -> None:
    try:
        raise ValueError("wrong")
    except ValueError:
        record = logging.LogRecord("x", logging.ERROR, "f", 1, "failed", (), sys.exc_info())
    line = line_of(record)
    assert "ValueError: wrong" in line["error"]
    assert "Traceback" in line["error"]


@pytest.mark.parametrize("format_", ["text", "json"])
def test_lines_go_to_stderr_from_the_level_on(format_: str, capsys: pytest.CaptureFixture[str]) -> None:
    write_log("warning", format_)
    log = logging.getLogger("tests.host")
    log.info("not this")
    log.warning("but this")
    out, err = capsys.readouterr()
    assert out == ""
    [line] = err.splitlines()
    if format_ == "json":
        assert json.loads(line)["message"] == "but this"
    else:
        assert line.endswith("WARNING tests.host: but this")


def test_a_spec_travels_whole_and_shows_no_secret() -> None:
    whole = spec(config=load(None, {}), redis_url="redis://:hunter2@host/0", provider="p")
    assert spec_decoder.decode(spec_encoder.encode(whole)) == whole
    assert "hunter2" not in repr(whole)


def exposed_at(address: str) -> str:
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as response:
        text: str = response.read().decode()
        return text


def test_a_process_counts_its_starts_and_describes_itself() -> None:
    async def whole(url: str) -> None:
        for start in range(3):
            host = Host(spec(redis_url=url, config=msgspec.structs.replace(Config(), data_dir="x")))
            await host.open()
            host.tally.add("dispatcher_snapshots", n=start + 1)
            about = msgspec.msgpack.decode(host.describe(backlog={"urgent": 4}))
            assert (about["name"], about["role"], about["pid"]) == ("shard:0", "shard", os.getpid())
            assert about["restarts"] == start
            assert about["backlog"] == {"urgent": 4}
            assert about["node"]
            exposed = await asyncio.to_thread(exposed_at, about["metrics"])
            assert f"dispatcher_snapshots_total {start + 1}.0" in exposed
            await host.close()
        other_run = Host(spec(redis_url=url, run="r2"))
        await other_run.open()
        assert msgspec.msgpack.decode(other_run.describe())["restarts"] == 0
        await other_run.close()

    with started("valkey") as process:
        run(whole(process.url))
