"""Profiles against real servers."""

import pytest

from dispatcher.store.connection import connect
from dispatcher.store.errors import StoreError
from dispatcher.store.profiles import ProfileStore
from tests.servers import Process, free_port
from tests.support import run


def test_profiles_are_kept_replaced_and_forgotten(server: Process) -> None:
    async def main() -> None:
        client = connect(server.url)
        store = ProfileStore(client)
        await store.put_many([(0, "ann", b'{"a":1}'), (7, "bob", b'{"b":1}'), (7, "Zoë:{1}", b"{}")])
        asked = [(7, "bob"), (0, "ann"), (0, "bob"), (7, "Zoë:{1}")]
        assert await store.get_many(asked) == [b'{"b":1}', b'{"a":1}', None, b"{}"]
        await store.put_many([(7, "bob", b'{"b":2}')])
        await store.delete([(0, "ann"), (0, "nobody")])
        assert await store.get_many(asked) == [b'{"b":2}', None, None, b"{}"]
        await client.aclose()

    run(main())


def test_nothing_asked_is_nothing_done(server: Process) -> None:
    async def main() -> None:
        client = connect(server.url)
        store = ProfileStore(client)
        assert await store.get_many([]) == []
        await store.put_many([])
        await store.delete([])
        await client.aclose()

    run(main())


def test_many_profiles_in_one_call(server: Process) -> None:
    async def main() -> None:
        client = connect(server.url)
        store = ProfileStore(client)
        await store.put_many([(n % 64, f"u{n}", b"%d" % n) for n in range(5000)])
        found = await store.get_many([(n % 64, f"u{n}") for n in range(5000)])
        assert found == [b"%d" % n for n in range(5000)]
        await client.aclose()

    run(main())


def test_a_store_that_is_away_is_a_store_error() -> None:
    async def main() -> None:
        store = ProfileStore(connect(f"redis://127.0.0.1:{free_port()}/0"))
        with pytest.raises(StoreError, match="does not answer"):
            await store.get_many([(0, "ann")])
        with pytest.raises(StoreError, match="does not answer"):
            await store.put_many([(0, "ann", b"{}")])

    run(main())
