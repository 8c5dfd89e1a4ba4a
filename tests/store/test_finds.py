"""What reports name, and uplinks, in real servers."""

import hypothesis.strategies as st
from hypothesis import HealthCheck, given, settings

from dispatcher.report import Uplink
from dispatcher.store import finds as module
from dispatcher.store import keys
from dispatcher.store.connection import connect
from dispatcher.store.finds import WIDTH_MS, Finds
from dispatcher.store.uplinks import Uplinks
from tests.servers import Process
from tests.support import run

KEEP_MS = 259_200_000
NOW_MS = 40_833 * WIDTH_MS + 7


def test_a_key_is_found_for_as_long_as_it_is_kept(server: Process) -> None:
    async def main() -> None:
        client = connect(server.url)
        finds = Finds(client, KEEP_MS)
        await finds.put({"a": {"k1": "m1", "k2": "m2"}, "b": {"k1": "m3"}}, NOW_MS)
        assert await finds.get("a", ["k2", "k1", "k9"], NOW_MS) == {"k1": "m1", "k2": "m2"}
        assert await finds.get("b", ["k1", "k2"], NOW_MS + KEEP_MS) == {"k1": "m3"}
        assert await finds.get("b", ["k1"], NOW_MS + KEEP_MS + WIDTH_MS) == {}
        assert await finds.get("c", ["k1"], NOW_MS) == {}
        assert await finds.get("a", [], NOW_MS) == {}
        left_ms = await client.pttl(keys.finds("a", NOW_MS // WIDTH_MS))
        assert KEEP_MS < left_ms <= KEEP_MS + WIDTH_MS
        await client.aclose()

    run(main())


def test_a_key_that_is_used_again_means_the_newest_message(server: Process) -> None:
    async def main() -> None:
        client = connect(server.url)
        finds = Finds(client, KEEP_MS)
        await finds.put({"a": {"k": "old"}}, NOW_MS - WIDTH_MS)
        await finds.put({"a": {"k": "new"}}, NOW_MS)
        assert await finds.get("a", ["k"], NOW_MS + 5) == {"k": "new"}
        await client.aclose()

    run(main())


def test_many_are_written_as_well(server: Process) -> None:
    async def main() -> None:
        client = connect(server.url)
        finds = Finds(client, KEEP_MS)
        many = {f"k{n}": f"m{n}" for n in range(module.MOST_WORDS + 1)}
        await finds.put({"many": many}, NOW_MS)
        assert await finds.get("many", list(many), NOW_MS) == many
        await client.aclose()

    run(main())


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=25)
@given(st.dictionaries(st.text(st.characters(codec="utf-8"), min_size=1), st.sampled_from("abc"), min_size=1))
def test_any_key_a_provider_makes_up_is_found(server: Process, by_key: dict[str, str]) -> None:
    async def main() -> None:
        client = connect(server.url)
        finds = Finds(client, KEEP_MS)
        await finds.put({"p": by_key}, NOW_MS)
        assert await finds.get("p", list(by_key), NOW_MS) == by_key
        await client.aclose()

    run(main())


def test_uplinks_are_kept_as_they_came(server: Process) -> None:
    async def main() -> None:
        client = connect(server.url)
        uplinks = Uplinks(client)
        said = [Uplink("p", "sms", f"+861380000000{n}", "退订", "1069", n, f"k{n}") for n in range(3)]
        await uplinks.add(said[:2])
        await uplinks.add(said[2:])
        assert await uplinks.last(2) == [said[2], said[1]]
        await client.aclose()

    run(main())
