"""Debian's Redis as an outside server, with both durabilities, looked at with redis-cli and killed."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.auditor import settled, watch
from tests.interop.conftest import PARTITIONS
from tests.live import live, until
from tests.servers import Process
from tests.support import run


def cli(server: Process, *words: str) -> str:
    return subprocess.run(
        ["redis-cli", "-p", str(server.port), *words], capture_output=True, text=True, timeout=30, check=True
    ).stdout.strip()


@pytest.mark.parametrize(
    ("durability", "appendfsync"), [("everysec", "everysec"), ("fsync", "everysec"), ("fsync", "always")]
)
def test_the_dispatcher_runs_on_debians_redis(tmp_path: Path, durability: str, appendfsync: str) -> None:
    binary = shutil.which("redis-server")
    assert binary is not None
    place = tmp_path / "redis"
    place.mkdir()
    server = Process("redis", Path(binary), place, {"appendfsync": appendfsync})
    told = cli(server, "INFO", "server").split("redis_version:")[1].split()[0]
    version = tuple(int(part) for part in told.split("."))
    try:
        if durability == "fsync" and appendfsync == "everysec" and version < (7, 2):
            _is_refused(tmp_path, server)
            return
        with live(tmp_path, partitions=PARTITIONS, durability=durability, redis={"url": server.url}) as (dispatcher, _):
            run(watch(server.url, PARTITIONS))
            triggers = [
                {"id": f"t{n}", "to": {"sms": f"+86135{n:08d}"}, "template": "notice", "line": "wallet",
                 "params": {"n": n}}
                for n in range(500)
            ]  # fmt: skip
            status, answers = dispatcher.call("POST", "/v1/triggers", triggers)
            assert (status, {answer["status"] for answer in answers}) == (200, {"accepted"})
            ids = {answer["messages"][0]["message"] for answer in answers}
            if appendfsync == "always":
                server.restart()  # SIGKILL: what was answered is there
            ledger = run(settled(server.url, PARTITIONS, ids))
            assert ledger.ended_twice() == []
            assert set(ledger.admitted) == ids
            assert int(cli(server, "DBSIZE")) > PARTITIONS
            until(lambda: dispatcher.call("GET", "/readyz")[0] == 200, "it has found its store again")
            _, again = dispatcher.call("POST", "/v1/triggers", triggers)
            assert {answer["status"] for answer in again} == {"duplicate"}
            assert dispatcher.down() == 0
            assert not (dispatcher.data / "valkey" / "valkey.pid").exists()
    finally:
        server.kill()


def _is_refused(place: Path, server: Process) -> None:
    """Without WAITAOF the start says what to mend."""
    with pytest.raises(AssertionError, match="fsync needs WAITAOF"), live(
        place, partitions=PARTITIONS, durability="fsync", redis={"url": server.url}
    ):
        pass
    assert os.path.exists(server.directory)
