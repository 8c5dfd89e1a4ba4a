"""Connecting, and what is said of servers that cannot keep what they are told."""

import asyncio

import pytest

from dispatcher.store import keys
from dispatcher.store.connection import (
    Server,
    check_durability,
    check_layout,
    connect,
    count_start,
    describe,
    fix_layout,
    note_ring,
    ring_of,
)
from dispatcher.store.errors import StoreError
from tests.servers import Process, free_port, started
from tests.support import run


async def described(url: str) -> Server:
    client = connect(url)
    try:
        return await describe(client)
    finally:
        await client.aclose()


def test_a_server_is_described(server: Process) -> None:
    found = run(described(server.url))
    if server.kind == "valkey":
        assert (found.kind, found.waitaof) == ("valkey", True)
        assert int(found.version.split(".")[0]) >= 8
    else:
        assert (found.kind, found.version[:4], found.waitaof) == ("redis", "6.2.", False)
    assert (found.appendonly, found.appendfsync) == (True, "everysec")


@pytest.mark.parametrize("kind", ["valkey", "redis62"])
def test_a_server_without_an_append_only_file_is_refused(kind: str) -> None:
    with started(kind, appendonly="no") as server:
        found = run(described(server.url))
        assert not found.appendonly
        with pytest.raises(StoreError, match="set `appendonly yes` there"):
            check_durability(found, "everysec")


def test_everysec_is_good_enough_for_everysec(server: Process) -> None:
    check_durability(run(described(server.url)), "everysec")


def test_fsync_needs_waitaof_or_always(server: Process) -> None:
    found = run(described(server.url))
    if server.kind == "valkey":
        check_durability(found, "fsync")
        return
    with pytest.raises(StoreError) as refused:
        check_durability(found, "fsync")
    assert str(refused.value) == (
        "durability: fsync needs WAITAOF (Redis 7.2, Valkey) or a server with `appendfsync always`; this is redis "
        f'{found.version} with `appendfsync everysec`. Mend the server, or set durability = "everysec"'
    )


def test_redis_62_that_syncs_always_is_good_enough_for_fsync() -> None:
    with started("redis62", appendfsync="always") as server:
        check_durability(run(described(server.url)), "fsync")


@pytest.mark.parametrize("kind", ["valkey", "redis62"])
def test_a_server_that_forbids_config_is_taken_for_everysec(kind: str) -> None:
    """As managed servers do; the user may do everything else."""
    with started(kind, appendfsync="always") as server:
        with server.client() as client:
            client.acl_setuser(
                "limited", enabled=True, passwords=["+secret"], keys=["*"], commands=["+@all", "-config"]
            )
        found = run(described(server.url.replace("//", "//limited:secret@")))
        assert (found.appendonly, found.appendfsync) == (True, "everysec")


def test_an_older_server_is_refused() -> None:
    class Old:
        async def info(self) -> dict[str, object]:
            return {"redis_version": "5.0.14", "aof_enabled": 1}

        async def config_get(self, _: str) -> dict[str, str]:
            return {"appendfsync": "everysec"}

    with pytest.raises(StoreError, match=r"the server is 5\.0\.14; 6\.2 or later"):
        run(describe(Old()))  # type: ignore[arg-type]


def test_nobody_there_is_said_at_once() -> None:
    with pytest.raises(StoreError, match="the store does not answer"):
        run(described(f"redis://127.0.0.1:{free_port()}/0"), timeout_s=5)


@pytest.mark.parametrize("url", ["localhost:6379", "http://localhost", ""])
def test_another_kind_of_url_is_refused(url: str) -> None:
    with pytest.raises(StoreError, match=r"redis\.url: "):
        connect(url)


def test_a_server_without_a_port_is_reached_by_its_socket() -> None:
    async def main(server: Process) -> None:
        assert (await described(f"unix://{server.directory / 'sock'}")).appendonly

    with started("valkey") as server:
        server.stop()
        server.conf["unixsocket"] = str(server.directory / "sock")
        server.start()
        run(main(server))


def test_starts_are_counted_per_run_and_actor(server: Process) -> None:
    async def main() -> None:
        client = connect(server.url)
        starts = [
            await count_start(client, run_, actor) for run_, actor in [("a", "x"), ("a", "x"), ("a", "y"), ("b", "x")]
        ]
        assert starts == [1, 2, 1, 1]
        await client.aclose()

    asyncio.run(main())


def test_the_ring_of_each_sender_is_kept(server: Process) -> None:
    async def main() -> None:
        client = connect(server.url)
        await client.flushall()
        assert await ring_of(client, "sender:a:0") is None
        for name, ring in (("sender:a:0", b"\x00\xff" * 8), ("sender:b:0", b"b" * 16), ("sender:a:0", b"\xfe" * 16)):
            await note_ring(client, name, ring)
        assert [await ring_of(client, f"sender:{id_}:0") for id_ in "ab"] == [b"\xfe" * 16, b"b" * 16]
        await client.aclose()

    asyncio.run(main())


def test_a_store_keeps_its_number_of_partitions_and_its_form(server: Process) -> None:
    async def starts() -> None:
        client = connect(server.url)
        try:
            await client.flushall()
            await fix_layout(client, 16)
            await fix_layout(client, 16)
            with pytest.raises(StoreError, match="partitions: this store was made with 16"):
                await fix_layout(client, 32)
            await client.delete(keys.LAYOUT)  # as the version before it left it
            with pytest.raises(StoreError, match="keeps its users in form 1"):
                await fix_layout(client, 16)
        finally:
            await client.aclose()

    run(starts())


def test_a_layout_is_looked_at_without_being_made(server: Process) -> None:
    async def looks() -> None:
        client = connect(server.url)
        try:
            await client.flushall()
            await check_layout(client, 16)
            assert await client.dbsize() == 0
            await fix_layout(client, 16)
            await check_layout(client, 16)
            with pytest.raises(StoreError, match="partitions: this store was made with 16"):
                await check_layout(client, 32)
            await client.delete(keys.LAYOUT)
            with pytest.raises(StoreError, match="keeps its users in form 1"):
                await check_layout(client, 16)
        finally:
            await client.aclose()

    run(looks())
