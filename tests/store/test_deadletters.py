"""Dead letters in real servers: with the entry or not at all, within both bounds, read in their order, once."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from random import Random

import msgspec
import pytest
from redis.asyncio import Redis

from dispatcher.deadletter import START, encode_letter, letter_place
from dispatcher.entries import End
from dispatcher.ident import message_id, place_of, time_prefix
from dispatcher.message import Message
from dispatcher.store import append, keys
from dispatcher.store.connection import connect
from dispatcher.store.deadletters import DEFAULT_BOUNDS, Bounds, DeadLetters, Post, words
from dispatcher.store.errors import Away, Fenced
from dispatcher.store.log import Log
from tests.letters import MemoryLetters
from tests.servers import Process, started
from tests.support import run

ENTRY = b"\xce\x00\x00\x00\x01"
NOW_MS = 1_764_000_000_000
ALL = "0" * 10


@asynccontextmanager
async def opened(
    server: Process, *partitions: int, bounds: Bounds = DEFAULT_BOUNDS
) -> AsyncIterator[tuple[Log, DeadLetters, Redis]]:
    """A log that owns these partitions, and what reads their letters."""
    client = connect(server.url)
    log = Log(client, letters=bounds)
    try:
        for p in partitions:
            await log.open(p)
        yield log, DeadLetters(client), client
        await log.stop()
    finally:
        await client.aclose()


def letter_of(p: int, n: int, at_ms: int = NOW_MS) -> tuple[str, bytes]:
    """Place and bytes of the letter of message number `n` of this partition."""
    id_ = message_id(time_prefix(NOW_MS), f"{n:013d}", p, "sms")
    message = Message(
        id_, f"t{n}", f"u{n}", "sms", "+8613800000000", "notice", 2, 1, "wallet", "pay_ok", {"text": "x" * 50}, {},
        NOW_MS, NOW_MS, NOW_MS + 60_000,
    )  # fmt: skip
    end = End(id_, "failed", True, "p1", None, "bad words")
    return letter_place(at_ms, id_), encode_letter(at_ms, end, msgspec.msgpack.encode(message))


def added(*letters: tuple[str, bytes], at_ms: int = NOW_MS) -> Post:
    return Post(at_ms, list(letters), [])


async def places(letters: DeadLetters, partitions: Sequence[int], most: int = 1_000) -> list[str]:
    """All places, page by page."""
    found: list[str] = []
    place, complete = START, False
    while not complete:
        page, complete = await letters.below(partitions, place, ALL, most)
        assert len(page) <= most
        assert page or complete
        found += page
        place = page[-1] if page else place
    return found


def test_a_letter_is_there_with_its_entry(server: Process) -> None:
    async def main() -> None:
        async with opened(server, 0, 1) as (log, letters, _):
            one, two, three = letter_of(0, 1), letter_of(0, 2, NOW_MS + 1), letter_of(1, 3, NOW_MS + 2)
            log.put(0, ENTRY, added(one))
            log.put(0, ENTRY, added(two, at_ms=NOW_MS + 1))
            log.put(0, ENTRY)
            log.put(1, ENTRY, added(three, at_ms=NOW_MS + 2))
            await log.durable()
            assert [len(entries) for _, entries in await log.read(0, 0, 10)] == [3]
            assert await places(letters, range(2)) == [three[0], two[0], one[0]]
            found = await letters.get([place[10:] for place, _ in (one, three, two)])
            assert [(letter.place, letter.message.trigger) for letter in found] == [
                (one[0], "t1"), (three[0], "t3"), (two[0], "t2"),
            ]  # fmt: skip
            assert (found[0].outcome, found[0].provider, found[0].code) == ("failed", "p1", "bad words")
            assert await letters.get(["x", letter_of(1, 9)[0][10:]]) == []

    run(main())


def test_an_older_owner_leaves_and_removes_none(server: Process) -> None:
    async def main() -> None:
        async with opened(server, 0) as (old, letters, client):
            old.put(0, ENTRY, added(letter_of(0, 1)))
            await old.durable()
            new = Log(client)
            await new.open(0)
            old.put(0, ENTRY, Post(NOW_MS, [letter_of(0, 2)], [letter_of(0, 1)[0]]))
            with pytest.raises(Fenced):
                await old.durable()
            assert await places(letters, [0]) == [letter_of(0, 1)[0]]
            await new.stop()

    run(main())


def test_a_repeated_call_brings_no_letter_back(server: Process) -> None:
    """Its reply was lost, and meanwhile the letter was sent again."""

    async def main() -> None:
        async with opened(server) as (_, letters, client):
            appender = append.Appender(client, fsync=False)
            epoch, seq = await appender.open(0)
            letter = letter_of(0, 1)
            first = append.Row(0, epoch, seq + 1, b"\x91\x01", words(added(letter), DEFAULT_BOUNDS))
            second = append.Row(0, epoch, seq + 2, b"\x91\x01", words(Post(NOW_MS, [], [letter[0]]), DEFAULT_BOUNDS))
            assert await appender.append([first]) == []
            assert await places(letters, [0]) == [letter[0]]
            assert await appender.append([second]) == []
            assert await appender.append([first]) == []
            assert await places(letters, [0]) == []
            assert await client.exists(keys.letters(0)) == 0

    run(main())


def test_a_server_that_lost_its_last_entries_gets_their_letters_again(server: Process) -> None:
    async def main() -> None:
        async with opened(server, 0) as (log, letters, client):
            one, two = letter_of(0, 1), letter_of(0, 2)
            log.put(0, ENTRY, added(one, two))
            await log.durable()
            log.put(0, ENTRY, Post(NOW_MS, [], [one[0]]))
            await log.durable()
            await client.delete(keys.log(0), keys.letters(0), keys.letter_index(0))
            await client.script_flush()
            log.put(0, ENTRY)
            await log.durable()
            assert len(await log.read(0, 0, 10)) == 3
            assert log.lost_entries == 0
            assert await places(letters, [0]) == [two[0]]

    run(main())


def test_the_oldest_go_first_by_number_and_by_age(server: Process) -> None:
    async def main() -> None:
        async with opened(server, 0, bounds=Bounds(5, 1_000)) as (log, letters, client):
            some = [letter_of(0, n, NOW_MS + n) for n in range(12)]
            for letter in some[:7]:
                log.put(0, ENTRY, added(letter, at_ms=NOW_MS + 7))
                await log.durable()
            assert await places(letters, [0]) == [place for place, _ in reversed(some[2:7])]
            log.put(0, ENTRY, added(*some[7:], at_ms=NOW_MS + 11))
            await log.durable()
            assert await places(letters, [0]) == [place for place, _ in reversed(some[7:])]
            late = letter_of(0, 99, NOW_MS + 1_009)
            log.put(0, ENTRY, added(late, at_ms=NOW_MS + 1_009))
            await log.durable()
            assert await places(letters, [0]) == [late[0], *(place for place, _ in reversed(some[9:]))]
            assert await client.hlen(keys.letters(0)) == 4
            assert await letters.sweep(range(3), Bounds(5, 1_000), NOW_MS + 1_011) == 2
            assert await letters.sweep(range(3), Bounds(1, 1_000), NOW_MS + 1_011) == 1
            assert await places(letters, [0]) == [late[0]]
            assert await client.hlen(keys.letters(0)) == 1

    run(main())


@pytest.mark.parametrize("most", [1, 7, 40, 1_000])
def test_pages_tell_every_place_once_newest_first(server: Process, most: int, rng: Random) -> None:
    """However unevenly they lie, and however many ended at the same moment."""

    async def main() -> None:
        async with opened(server, *range(5)) as (log, letters, _):
            told = []
            for n in range(300):
                p, at_ms = min(int(rng.expovariate(0.5)), 4), NOW_MS + rng.randrange(20)
                letter = letter_of(p, n, at_ms)
                log.put(p, ENTRY, added(letter, at_ms=at_ms))
                told.append(letter[0])
            await log.durable()
            assert await places(letters, range(5), most) == sorted(told, reverse=True)
            oldest = time_prefix(NOW_MS + 15)
            page, complete = await letters.below(range(5), time_prefix(NOW_MS + 18), oldest, 1_000)
            assert complete
            assert page == sorted((x for x in told if oldest <= x < time_prefix(NOW_MS + 18)), reverse=True)

    run(main())


def test_any_sequence_keeps_the_bounds_and_doubles_nothing(server: Process, rng: Random) -> None:
    """Leaving (the same one, too), sending again and expiring, in batches of any size, as the model in memory."""

    async def main() -> None:
        bounds = Bounds(20, 500)
        async with opened(server, 0, 1, bounds=bounds) as (log, letters, client):
            model, now_ms = MemoryLetters(bounds), NOW_MS
            for step in range(400):
                now_ms += rng.choice((0, 1, 5, 50))
                p = rng.randrange(2)
                fresh = [letter_of(p, rng.randrange(150), now_ms) for _ in range(rng.randrange(4))]
                fresh = list({place: (place, letter) for place, letter in fresh}.values())
                there = sorted(model.kept.get(p, {}))
                gone = rng.sample(there, min(len(there), rng.randrange(3)))
                post = Post(now_ms, fresh, gone)
                if rng.random() < 0.9:
                    log.put(p, ENTRY, post)
                    await log.durable()
                    model.post(p, post)
                else:
                    assert await letters.sweep([p], bounds, now_ms) == model.shrink(p, now_ms)
                kept = await client.zcard(keys.letter_index(p))
                assert kept == await client.hlen(keys.letters(p)) <= bounds.most
                if step % 10 == 0:
                    found = await places(letters, [0, 1], 7)
                    assert found == model.places()
                    assert len({place[10:] for place in found}) == len(found)
                    assert await letters.get([place[10:] for place in found]) == model.all()

    run(main())


def test_a_store_that_is_away_says_so() -> None:
    async def main() -> None:
        with started("valkey") as server:
            client = connect(server.url)
            letters = DeadLetters(client)
            server.kill()
            id_ = letter_of(0, 1)[0][10:]
            assert place_of(id_) == (0, "sms")
            with pytest.raises(Away):
                await letters.below([0], START, ALL, 10)
            with pytest.raises(Away):
                await letters.get([id_])
            with pytest.raises(Away):
                await letters.sweep([0], DEFAULT_BOUNDS, NOW_MS)
            await client.aclose()

    run(main())
