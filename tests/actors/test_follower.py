"""The follower: in step with the store, whatever the store does."""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any, cast

import msgspec
import pytest

from actors.follower import Follower
from dispatcher.catalog import Catalog
from dispatcher.store.catalog import CatalogStore, Change
from dispatcher.store.connection import connect
from dispatcher.store.errors import Away, Behind
from tests.actors.fakes import play, turns
from tests.servers import started
from tests.support import until

LINE = msgspec.json.encode({"name": "x"})


class ScriptedStore:
    """Gives out what was scripted; with nothing left it is silent, as a store without news is."""

    def __init__(self) -> None:
        self.version = 1
        self.lines: dict[str, bytes] = {}
        self.script: deque[list[Change] | Exception] = deque()
        self.load_failures: deque[Exception] = deque()
        self.loads = 0
        self.asked: list[int] = []

    async def load_all(self, kinds: Sequence[str]) -> tuple[int, dict[str, dict[str, bytes]]]:
        self.loads += 1
        if self.load_failures:
            raise self.load_failures.popleft()
        return self.version, {"lines": dict(self.lines)}

    async def changes(self, after: int, block_ms: int) -> Sequence[Change]:
        self.asked.append(after)
        await asyncio.sleep(0.001)
        if not self.script:
            return []
        step = self.script.popleft()
        if isinstance(step, Exception):
            raise step
        return step


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> ScriptedStore:
    real = asyncio.sleep

    async def soon(seconds: float) -> None:
        await real(min(seconds, 0.005))

    monkeypatch.setattr("actors.follower.asyncio.sleep", soon)
    return ScriptedStore()


def follower_of(store: Any) -> Follower:
    return Follower(Catalog(), cast(CatalogStore, store))


def test_changes_are_followed_in_order_and_waited_for(store: ScriptedStore) -> None:
    async def whole() -> None:
        follower = follower_of(store)
        heard: list[str] = []
        follower.catalog.on_change.append(heard.append)
        await follower.start()
        assert follower.catalog.version == 1
        waiting = [asyncio.create_task(follower.reached(version)) for version in (1, 2, 3)]
        await turns(3)
        assert [task.done() for task in waiting] == [True, False, False]
        store.script.append([Change(2, "lines", "a", LINE)])
        await waiting[1]
        store.script.append([Change(2, "lines", "a", None), Change(3, "lines", "b", LINE)])
        await waiting[2]
        assert sorted(follower.catalog.lines) == ["a", "b", "default"]  # what was seen already is passed over
        assert heard == ["*", "lines", "lines"]
        await follower.stop()

    play(whole())


@pytest.mark.parametrize("load_failures", [0, 2])
def test_one_that_fell_behind_loads_everything_again(store: ScriptedStore, load_failures: int) -> None:
    """Also when the store goes away just then."""

    async def whole() -> None:
        follower = follower_of(store)
        await follower.start()
        store.version, store.lines = 9, {"new": LINE}
        store.load_failures.extend([Away("away")] * load_failures)
        store.script.extend([Behind("trimmed")] * (load_failures + 1))
        await asyncio.wait_for(follower.reached(9), 5)
        assert sorted(follower.catalog.lines) == ["default", "new"]
        assert store.loads == 2 + load_failures
        store.script.append([Change(10, "lines", "more", LINE)])
        await asyncio.wait_for(follower.reached(10), 5)
        await follower.stop()

    play(whole())


def test_while_the_store_is_away_the_catalog_stays_and_then_goes_on(store: ScriptedStore) -> None:
    async def whole() -> None:
        store.lines = {"old": LINE}
        follower = follower_of(store)
        await follower.start()
        store.script.extend([Away("away")] * 3)
        await until(lambda: not store.script, "it asked again and again")
        assert "old" in follower.catalog.lines
        store.script.append([Change(2, "lines", "new", LINE)])
        await asyncio.wait_for(follower.reached(2), 5)
        assert sorted(follower.catalog.lines) == ["default", "new", "old"]
        await follower.stop()

    play(whole())


def test_a_bug_in_a_listener_does_not_end_the_following(store: ScriptedStore) -> None:
    async def whole() -> None:
        follower = follower_of(store)

        def broken(kind: str) -> None:
            if follower.catalog.version == 2:
                raise ZeroDivisionError

        follower.catalog.on_change.append(broken)
        await follower.start()
        store.script.extend([[Change(2, "lines", "a", LINE)], [Change(3, "lines", "b", LINE)]])
        await asyncio.wait_for(follower.reached(3), 5)
        await follower.stop()

    play(whole())


def test_a_start_without_a_store_fails(store: ScriptedStore) -> None:
    async def whole() -> None:
        store.load_failures.append(Away("away"))
        follower = follower_of(store)
        with pytest.raises(Away):
            await follower.start()
        await follower.stop()

    play(whole())


def test_on_a_real_store() -> None:
    async def whole(url: str) -> None:
        redis = connect(url)
        store = CatalogStore(redis)
        follower = follower_of(store)
        await follower.start()
        for number in range(20):
            await store.put("lines", f"l{number}", LINE, "test", 0)
        await asyncio.wait_for(follower.reached(await store.version()), 10)
        assert len(follower.catalog.lines) == 21
        await redis.delete("catalog:changes")
        version = await store.put_many("lines", [("late", LINE)], "test", 0)
        await asyncio.wait_for(follower.reached(version), 10)
        assert "late" in follower.catalog.lines
        await follower.stop()
        await redis.aclose()

    with started("valkey") as process:
        play(whole(process.url))
