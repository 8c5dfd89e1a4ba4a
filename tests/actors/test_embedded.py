"""The embedded server: it comes back with everything acknowledged, there is one of it, and it ends when it should."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from actors import embedded
from actors.embedded import EmbeddedValkey
from dispatcher.store.connection import check_durability, connect, describe
from dispatcher.store.errors import StoreError
from dispatcher.store.log import Log
from tests.support import run, until

CHILD = """
import asyncio, sys
from pathlib import Path
from actors.embedded import EmbeddedValkey
from dispatcher.store.connection import connect

async def main():
    valkey = EmbeddedValkey(Path(sys.argv[1]))
    client = connect(await valkey.start())
    await client.set("kept", "yes")
    print(valkey.pid, flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


@asynccontextmanager
async def running(directory: Path, durability: str = "everysec") -> AsyncIterator[EmbeddedValkey]:
    valkey = EmbeddedValkey(directory, durability)
    await valkey.start()
    try:
        yield valkey
    finally:
        await valkey.stop()


def alive(pid: int) -> bool:
    """Whether the process runs; one that has ended and was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def start_child(directory: Path) -> tuple["subprocess.Popen[str]", int]:
    """A dispatcher of its own process, and the pid of its server."""
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(directory)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert child.stdout is not None
    with child.stdout as told:
        return child, int(told.readline())


def test_it_is_what_the_dispatcher_demands(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path) as valkey:
            client = connect(valkey.url)
            server = await describe(client)
            check_durability(server, "everysec")
            assert (server.kind, server.appendfsync) == ("valkey", "no")
            settings: Any = await client.config_get("*")
            wanted = {"port": "0", "save": "", "maxmemory-policy": "noeviction", "dir": str(tmp_path / "valkey")}
            assert {name: settings[name] for name in wanted} == wanted
            assert valkey.socket.stat().st_mode & 0o077 == 0
            await client.aclose()

    run(main())


@pytest.mark.parametrize("durability", ["everysec", "fsync"])
def test_a_killed_server_comes_back_with_everything_acknowledged(tmp_path: Path, durability: str) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with running(tmp_path, durability) as valkey:
            client = connect(valkey.url)
            log = Log(client, durability)
            await log.open(0)
            acknowledged = 0

            async def load() -> None:
                nonlocal acknowledged
                for n in range(1500):
                    log.put(0, b"\xcd" + n.to_bytes(2, "big"))
                    await log.durable()
                    acknowledged = n + 1

            loading = asyncio.ensure_future(load())
            for kill in (1, 2):
                await until(partial(lambda least: acknowledged > least, kill * 300), "entries acknowledged")
                pid = valkey.pid
                assert pid is not None
                os.kill(pid, signal.SIGKILL)
                began = loop.time()
                await until(partial(lambda old: valkey.pid not in (None, old), pid), "another server", 2)
                before = acknowledged
                await until(partial(lambda least: acknowledged > least, before), "it to take entries", 2)
                assert loop.time() - began < 2
                assert valkey.restarts == kill
            await loading
            rows = await log.read(0, 0, 2000)
            found = [int.from_bytes(entry[1:], "big") for _, entries in rows for entry in entries]
            assert found == list(range(1500))
            assert log.lost_entries == 0
            await log.stop()
            await client.aclose()

    run(main())


def test_acknowledged_entries_are_in_the_file_before_the_answer(tmp_path: Path) -> None:
    """Without the log's own repair: what a killed server had answered is there, hundreds of kills at any moment."""

    async def main() -> None:
        async with running(tmp_path) as valkey:
            for round_ in range(3):
                client = connect(valkey.url)
                for n in range(200):
                    await client.set("n", n + 1000 * round_)
                pid = valkey.pid
                assert pid is not None
                os.kill(pid, signal.SIGKILL)
                await client.aclose()
                await until(lambda count=round_ + 1: valkey.restarts == count, "the restart")  # type: ignore[misc]
                await until(partial(answers, valkey), "it to answer")
                client = connect(valkey.url)
                assert await client.get("n") == b"%d" % (199 + 1000 * round_)
                await client.aclose()

    run(main())


async def answers(valkey: EmbeddedValkey) -> bool:
    client = connect(valkey.url)
    try:
        return bool(await client.ping())
    except Exception:
        return False
    finally:
        await client.aclose()


def test_a_second_dispatcher_on_the_same_directory_is_refused(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path) as valkey:
            with pytest.raises(StoreError) as refused:
                await EmbeddedValkey(tmp_path).start()
            assert str(refused.value).startswith(
                f"data_dir: another dispatcher (pid {os.getpid()}) runs on {tmp_path}; stop it"
            )
            assert await answers(valkey)
        async with running(tmp_path) as valkey:
            assert await answers(valkey)

    run(main())


@pytest.mark.parametrize("at_once", [True, False])
def test_a_server_ends_with_its_killed_dispatcher_and_the_next_has_its_data(tmp_path: Path, at_once: bool) -> None:
    child, pid = start_child(tmp_path)
    assert alive(pid)
    child.kill()
    child.wait()

    async def main() -> None:
        if not at_once:
            await until(lambda: not alive(pid), "the server to end by itself", 5)
        async with running(tmp_path) as valkey:
            assert valkey.pid != pid
            assert not alive(pid)
            client = connect(valkey.url)
            assert await client.get("kept") == b"yes"
            await client.aclose()

    run(main())


def test_a_server_that_was_left_over_is_ended_first(tmp_path: Path) -> None:
    """As on a system without PR_SET_PDEATHSIG: nobody told it that its dispatcher is gone."""
    directory = tmp_path / "valkey"
    directory.mkdir()
    conf = embedded.CONF.format(socket=directory / "valkey.sock", directory=directory, appendfsync="no")
    (directory / "valkey.conf").write_text(conf)
    left = subprocess.Popen([embedded.server_binary(), directory / "valkey.conf"])
    try:
        deadline = time.monotonic() + 10
        while not (directory / "valkey.sock").exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)

        async def main() -> None:
            async with running(tmp_path) as valkey:
                assert valkey.pid != left.pid
                assert await answers(valkey)

        run(main())
        assert left.wait(5) == 0
    finally:
        left.kill()
        left.wait()


def test_a_pid_that_now_belongs_to_another_process_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "valkey").mkdir()
    bystander = subprocess.Popen(["sleep", "60"])
    (tmp_path / "valkey" / "valkey.pid").write_text(f"{bystander.pid}\n")
    try:

        async def main() -> None:
            async with running(tmp_path) as valkey:
                assert await answers(valkey)

        run(main())
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_stop_lets_it_exit_by_itself(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path) as valkey:
            pid = valkey.pid
            assert pid is not None
            assert os.getpgid(pid) == pid  # Ctrl-C goes to our group, not to this one
        assert valkey.pid is None
        assert not alive(pid)
        assert not valkey.socket.exists()
        assert valkey.restarts == 0
        assert "ready to exit" in (tmp_path / "valkey" / "valkey.log").read_text()
        await valkey.stop()

    run(main())


def test_fsync_syncs_before_it_answers(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path, "fsync") as valkey:
            client = connect(valkey.url)
            server = await describe(client)
            assert server.appendfsync == "always"
            check_durability(server, "fsync")
            await client.aclose()

    run(main())


def test_everysec_syncs_the_file_once_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    fsync = os.fsync

    def noted(file: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{file}"))
        fsync(file)

    monkeypatch.setattr(os, "fsync", noted)
    monkeypatch.setattr(embedded, "SYNC_S", 0.05)

    async def main() -> None:
        async with running(tmp_path):
            await until(lambda: len(synced) >= 3, "the file to be synced")

    run(main())
    assert all(path.endswith(".incr.aof") for path in synced)


def test_a_long_data_dir_gets_a_socket_elsewhere(tmp_path: Path) -> None:
    long = tmp_path / ("long" * 30)

    async def main() -> None:
        async with running(long) as valkey:
            assert await answers(valkey)
            assert not valkey.socket.is_relative_to(tmp_path)
            assert valkey.socket.parent.stat().st_mode & 0o777 == 0o700
        assert not valkey.socket.exists()

    run(main())


def test_a_name_with_spaces_and_quotes_is_a_name(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path / 'my "data"') as valkey:
            assert await answers(valkey)

    run(main())


def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"data_dir: .*/file/data cannot be written"):
        run(EmbeddedValkey(tmp_path / "file" / "data").start())


def test_a_platform_without_a_server_is_told_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "find_spec", lambda _: None)
    with pytest.raises(StoreError, match="give the URL of a Redis"):
        run(EmbeddedValkey(tmp_path).start())


def test_a_server_that_cannot_start_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "CONF", embedded.CONF + "no-such-setting 1\n")

    async def main() -> None:
        valkey = EmbeddedValkey(tmp_path)
        with pytest.raises(StoreError, match="does not start"):
            await valkey.start()
        monkeypatch.undo()
        async with running(tmp_path) as other:
            assert await answers(other)

    run(main())
