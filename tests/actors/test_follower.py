"""The follower: in step with the store, whatever the store does."""

import asyncio
import random
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from itertools import count
from typing import Any, cast

import msgspec
import pytest

from actors.follower import Follower
from dispatcher.catalog import DOCUMENTS, KINDS_OF, Catalog
from dispatcher.edit import Change, Edit
from dispatcher.store import changes, keys
from dispatcher.store.blacklist import BATCH, BlacklistStore, StoredEntry
from dispatcher.store.catalog import CatalogStore, Versioned
from dispatcher.store.connection import connect
from dispatcher.store.errors import Away, Behind
from tests.actors.fakes import play, turns
from tests.servers import Process
from tests.support import until

LINE = msgspec.json.encode({"name": "x"})
ROUTES = msgspec.json.encode([{"providers": [{"id": "a"}]}])


def one(version: int, kind: str, id_: str, doc: bytes | None) -> Change:
    """A change of one document."""
    return Change(version, kind, [Edit(id_, doc)])


def entry(n: int, **more: Any) -> StoredEntry:
    """The blacklist entry of user `u<n>`."""
    return StoredEntry(f"id{n}", msgspec.json.encode({"user": f"u{n}", **more}))


def blocked(catalog: Catalog, n: int) -> bool:
    """Whether user `u<n>` is blacklisted."""
    return catalog.blacklist.find(f"u{n}", "", "sms", "notice", "default", 0) is not None


class ScriptedStore:
    """Gives out what was scripted; with nothing left it is silent, as a store without news is."""

    def __init__(self) -> None:
        self.number = 1
        self.lines: dict[str, bytes] = {}
        self.script: deque[list[Change] | Exception] = deque()
        self.load_failures: deque[Exception] = deque()
        self.loads = 0
        self.asked: list[int] = []
        self.scanned: list[str] = []
        self.big: dict[str, bytes] = {}
        self.while_scanning: list[Change] = []  # written after the version was taken

    async def scan(self, kind: str, slice_: int) -> AsyncIterator[Sequence[Edit]]:
        self.scanned.append(kind)
        if kind == "lines":
            self.loads += 1
            if self.load_failures:
                raise self.load_failures.popleft()
            if self.while_scanning:
                self.number = self.while_scanning[-1].version
                self.script.append(self.while_scanning)
                self.while_scanning = []
            yield [Edit(id_, doc) for id_, doc in self.lines.items()]

    async def version(self) -> int:
        return self.number

    async def get(self, kind: str, id_: str) -> Versioned | None:
        doc = self.big.get(f"{kind}/{id_}")
        return None if doc is None else Versioned(1, 1, "", doc)

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


def follower_of(store: Any, kinds: Sequence[str] = tuple(DOCUMENTS)) -> Follower:
    return Follower(Catalog(), cast(CatalogStore, store), kinds)


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
        store.script.append([one(2, "lines", "a", LINE)])
        await waiting[1]
        store.script.append([one(2, "lines", "a", None), one(3, "lines", "b", LINE)])
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
        store.number, store.lines = 9, {"new": LINE}
        store.load_failures.extend([Away("away")] * load_failures)
        store.script.extend([Behind("trimmed")] * (load_failures + 1))
        await asyncio.wait_for(follower.reached(9), 5)
        assert sorted(follower.catalog.lines) == ["default", "new"]
        assert store.loads == 2 + load_failures
        store.script.append([one(10, "lines", "more", LINE)])
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
        store.script.append([one(2, "lines", "new", LINE)])
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
        store.script.extend([[one(2, "lines", "a", LINE)], [one(3, "lines", "b", LINE)]])
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


@pytest.mark.parametrize("role", list(KINDS_OF))
def test_a_role_loads_and_follows_what_it_works_by(store: ScriptedStore, role: str) -> None:
    """Versions of other kinds are reached, too."""

    async def whole() -> None:
        follower = follower_of(store, KINDS_OF[role])
        heard: list[str] = []
        follower.catalog.on_change.append(heard.append)
        await follower.start()
        assert sorted(store.scanned) == sorted(KINDS_OF[role])
        provider = msgspec.json.encode({"kind": "webhook", "channel": "sms"})
        store.script.append([
            one(2, "lines", "a", LINE), one(3, "providers", "p", provider), one(4, "routes", "all", ROUTES),
            Change(5, "blacklist", [Edit("id1", entry(1).doc)]), one(6, "keywords", "k", None),
        ])  # fmt: skip
        await asyncio.wait_for(follower.reached(6), 5)
        catalog = follower.catalog
        there = {
            "lines": "a" in catalog.lines, "providers": "p" in catalog.providers, "routes": bool(catalog.routes),
            "blacklist": blocked(catalog, 1),
        }  # fmt: skip
        assert there == {kind: kind in KINDS_OF[role] for kind in there}
        assert set(heard) <= {"*", *KINDS_OF[role]}
        await follower.stop()

    play(whole())


def test_what_is_written_while_loading_is_not_missed(store: ScriptedStore) -> None:
    """The scan saw some of it; readers see nothing before all of it is there."""

    async def whole() -> None:
        store.lines = {"new": LINE, "going": LINE}
        store.while_scanning = [
            one(2, "lines", "new", LINE), one(3, "lines", "going", None), one(4, "lines", "unseen", LINE)
        ]  # fmt: skip
        follower = follower_of(store)
        seen: list[list[str]] = []
        follower.catalog.on_change.append(lambda _: seen.append(sorted(follower.catalog.lines)))
        await follower.start()
        assert seen == [["default", "new", "unseen"]]
        assert follower.catalog.version == 4
        await follower.stop()

    play(whole())


def test_one_that_falls_behind_while_loading_begins_again(store: ScriptedStore) -> None:
    async def whole() -> None:
        store.while_scanning = [one(2, "lines", "a", LINE)]
        store.script.append(Behind("trimmed"))
        follower = follower_of(store)
        await follower.start()
        assert store.loads == 2
        assert follower.catalog.version == 2
        await follower.stop()

    play(whole())


def test_a_big_document_is_fetched(store: ScriptedStore) -> None:
    """And one that is deleted before it can be is left to the change that says so."""

    async def whole() -> None:
        follower = follower_of(store)
        await follower.start()
        store.big = {"lines/a": LINE, "keywords/k": msgspec.json.encode({"words": ["lottery"]})}
        big = [Change(n, kind, [Edit(id_, None, None, big=True)]) for n, (kind, id_) in enumerate(
            [("lines", "a"), ("lines", "gone"), ("keywords", "k"), ("keywords", "gone")], 2
        )]  # fmt: skip
        store.script.append(big)
        await asyncio.wait_for(follower.reached(5), 5)
        catalog = follower.catalog
        assert sorted(catalog.lines) == ["a", "default"]
        assert list(catalog.keywords) == ["k"]
        assert catalog.keywords["k"].find({"text": "a Lot-tery"}) is not None
        store.script.append([one(6, "keywords", "k", None)])
        await asyncio.wait_for(follower.reached(6), 5)
        assert catalog.keywords == {}
        await follower.stop()

    play(whole())


# -- on real stores


def test_on_a_real_store(server: Process) -> None:
    async def whole() -> None:
        redis = connect(server.url)
        store = CatalogStore(redis)
        follower = follower_of(store)
        await follower.start()
        for number in range(20):
            await store.put("lines", f"l{number}", LINE, "test", 0)
        await asyncio.wait_for(follower.reached(await store.version()), 10)
        assert len(follower.catalog.lines) == 21
        await redis.delete(keys.CATALOG_CHANGES)
        version = await store.put("lines", "late", LINE, "test", 0)
        await asyncio.wait_for(follower.reached(version), 10)
        assert "late" in follower.catalog.lines
        await follower.stop()
        await redis.aclose()

    play(whole())


@pytest.mark.parametrize("turns_between", range(6))
def test_it_stops_whatever_it_is_doing(server: Process, turns_between: int) -> None:
    async def whole() -> None:
        redis = connect(server.url)
        store = CatalogStore(redis)
        follower = follower_of(store)
        await follower.start()
        await follower.reached(await store.put("lines", "a", LINE, "test", 0))
        await turns(turns_between)
        await asyncio.wait_for(follower.stop(), 10)
        await redis.aclose()

    play(whole())


def test_entries_come_and_go(server: Process) -> None:
    """Several batches at once, deletion by id, replacement, and a load of all that is left."""

    async def whole() -> None:
        redis = connect(server.url)
        store, entries = CatalogStore(redis), BlacklistStore(redis)
        await entries.put([entry(n) for n in range(2 * BATCH)], "test", 0)
        follower = follower_of(store)
        await follower.start()
        catalog = follower.catalog
        assert len(catalog.blacklist) == 2 * BATCH
        await entries.put([entry(n, channel="push") for n in range(BATCH)], "test", 0)
        await entries.put([entry(n) for n in range(2 * BATCH, 5 * BATCH + 1)], "test", 0)
        await entries.put([StoredEntry("mortal", b'{"user":"u-1","expires_at":"1970-01-01T00:00:09Z"}', 9_000)], "", 0)
        assert await entries.expire(8_999) == (0, 0)
        await entries.expire(9_000)
        version = await entries.delete(f"id{BATCH}")
        await asyncio.wait_for(follower.reached(version), 10)
        await follower.stop()

        again = follower_of(store)
        await again.start()
        for known in (catalog, again.catalog):
            assert [n for n in range(-1, 5 * BATCH + 2) if not blocked(known, n)] == [
                -1, *(n for n in range(BATCH) if known is again.catalog), BATCH, 5 * BATCH + 1,
            ]  # fmt: skip
        await again.stop()
        await redis.aclose()

    play(whole())


def test_a_load_amid_writing_ends_where_the_store_is(server: Process, rng: random.Random) -> None:
    """Writers put and delete all the while; followers that start, or fall behind, at any moment agree in the end."""

    async def whole() -> None:
        redis, other = connect(server.url), connect(server.url)
        store, entries = CatalogStore(redis), BlacklistStore(other)
        users: set[int] = set()
        lines: dict[str, bytes] = {}
        await entries.put([entry(n) for n in range(3_000)], "test", 0)
        users |= set(range(3_000))

        async def write() -> None:
            for n in count():
                if n >= 150 and len(followers) >= 8:
                    return
                some = rng.sample(range(6_000), 20)
                await entries.put([entry(n) for n in some], "test", 0)
                users.update(some)
                for gone in rng.sample(sorted(users), 5):
                    await entries.delete(f"id{gone}")
                    users.discard(gone)
                lines[f"l{n % 7}"] = msgspec.json.encode({"name": f"{n}"})
                await store.put("lines", f"l{n % 7}", lines[f"l{n % 7}"], "test", 0)

        followers: list[Follower] = []
        writing = asyncio.create_task(write())
        for _ in range(8):
            follower = follower_of(CatalogStore(connect(server.url)))
            await follower.start()
            followers.append(follower)
            await asyncio.sleep(0.05)
        await writing
        version = await store.version()
        wanted = {n for n in range(6_000) if n in users}
        for follower in followers:
            await asyncio.wait_for(follower.reached(version), 20)
            catalog = follower.catalog
            assert {n for n in range(6_000) if blocked(catalog, n)} == wanted
            assert len(catalog.blacklist) == len(wanted)
            assert {i: line.name for i, line in catalog.lines.items() if i != "default"} == {
                i: msgspec.json.decode(doc)["name"] for i, doc in lines.items()
            }
            await follower.stop()
            await follower._store._redis.aclose()
        await redis.aclose()
        await other.aclose()

    play(whole())


async def _pauses(longest: list[float]) -> None:
    """A ticker of 1 ms; the most that this process computed between two of its ticks, in seconds of CPU, which a busy
    machine does not prolong."""
    last = time.process_time()
    while True:
        await asyncio.sleep(0.001)
        now = time.process_time()
        longest[0] = max(longest[0], now - last)
        last = now


def test_a_long_keyword_list_is_swapped_without_a_pause(server: Process, rng: random.Random) -> None:
    """200,000 words, first and then others: every change is in force when it is reached, and nobody waited for it.

    The bound is ten times the one that is wanted, 50 ms: machines that run tests are shared."""

    def words(salt: str) -> bytes:
        made = {"".join(chr(rng.randrange(0x4E00, 0x9FA5)) for _ in range(rng.randrange(2, 7))) for _ in range(200_000)}
        return msgspec.json.encode({"words": [*sorted(made), f"needle {salt}"]})

    first, second = words("one"), words("two")
    assert len(first) > changes.BIG_BYTES

    async def whole() -> None:
        redis = connect(server.url)
        store = CatalogStore(redis)
        follower = follower_of(store, KINDS_OF["shard"])
        await follower.start()
        longest = [0.0]
        ticking = asyncio.create_task(_pauses(longest))
        for salt, doc in (("one", first), ("two", second)):
            version = await store.put("keywords", "default", doc, "test", 0)
            await asyncio.wait_for(follower.reached(version), 100)
            found = [follower.catalog.keywords["default"].find({"text": f"a n e e d l e {s}"}) for s in ("one", "two")]
            assert [hit is not None for hit in found] == [salt == "one", salt == "two"]
        ticking.cancel()
        assert longest[0] < 0.5
        await follower.stop()
        longest[0] = 0.0
        ticking = asyncio.create_task(_pauses(longest))
        again = follower_of(store, KINDS_OF["shard"])
        await again.start()
        assert again.catalog.keywords["default"].find({"text": "needletwo"}) is not None
        ticking.cancel()
        assert longest[0] < 0.5
        await again.stop()
        await redis.aclose()

    play(whole(), timeout_s=250)
