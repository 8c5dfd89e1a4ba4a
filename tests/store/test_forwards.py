"""The queues of lines' webhooks in real servers."""

from collections.abc import Awaitable, Callable

import pytest
from redis.asyncio import Redis

from dispatcher.report import Uplink
from dispatcher.store import forwards as module
from dispatcher.store import keys
from dispatcher.store.connection import connect
from dispatcher.store.forwards import SEEN_S, Forwards
from dispatcher.uplink import Forward
from tests.servers import Process
from tests.support import run


def forward(n: int, line: str = "钱包", taken_ms: int = 5) -> Forward:
    return Forward(f"uplink_{n}", line, "CX", taken_ms, Uplink("p", "sms", "+86", f"CX {n}"))


def played(server: Process, script: Callable[[Redis, Forwards], Awaitable[None]]) -> None:
    async def main() -> None:
        client = connect(server.url)
        try:
            for key in await client.keys("{uplinks}*"):
                await client.delete(key)
            await script(client, Forwards(client))
        finally:
            await client.aclose()

    run(main())


def test_one_at_a_time_works_on_a_line(server: Process) -> None:
    async def script(client: Redis, queue: Forwards) -> None:
        assert await queue.take(10**6, 10**6) is None
        assert [await queue.add(forward(n), f"i{n}") for n in range(3)] == ["queued"] * 3
        await queue.add(forward(9, "b", 7), None)
        assert await queue.take(4, 1_000) is None
        taken = await queue.take(10, 1_000)
        assert taken is not None
        assert (taken.line, taken.failures, taken.forwards) == ("钱包", 0, [forward(0), forward(1), forward(2)])
        other = await queue.take(10, 1_000)
        assert other is not None
        assert other.forwards == [forward(9, "b", 7)]
        assert await queue.take(999, 2_000) is None
        await queue.drop(forward(0))
        await queue.drop(forward(0))
        await queue.postpone(forward(1))
        await queue.settle(taken, 1_500, 3)
        await queue.drop(forward(9, "b", 7))
        await queue.settle(other, 1_500, 0)
        assert await queue.take(1_499, 2_000) is None
        again = await queue.take(1_500, 2_000)
        assert again is not None
        assert (again.failures, again.forwards) == (3, [forward(2), forward(1)])
        for done in again.forwards:
            await queue.drop(done)
        await queue.settle(again, 2_000, 0)
        left = {key.decode() for key in await client.keys("{uplinks}*")}
        assert left == {keys.uplink_seen(f"i{n}") for n in range(3)}

    played(server, script)


def test_whoever_lost_the_line_says_nothing_more(server: Process) -> None:
    async def script(_: Redis, queue: Forwards) -> None:
        await queue.add(forward(0), None)
        late = await queue.take(10, 1_000)
        now = await queue.take(1_000, 5_000)  # the lease has ended
        assert late is not None
        assert now is not None
        assert now.forwards == late.forwards
        await queue.settle(late, 1_000, 9)
        assert await queue.take(4_999, 6_000) is None
        await queue.drop(forward(0))
        await queue.postpone(forward(0))  # it is gone: it does not come back
        await queue.settle(now, 5_000, 0)
        assert await queue.take(10**6, 10**7) is None

    played(server, script)


def test_what_is_said_again_is_queued_once(server: Process) -> None:
    async def script(client: Redis, queue: Forwards) -> None:
        assert await queue.add(forward(0), "i") == "queued"
        assert await queue.add(forward(1), "i") == "repeated"
        assert await queue.add(forward(2), None) == await queue.add(forward(2), None) == "queued"
        assert [await queue.seen(name) for name in ("i", "j")] == [True, False]
        await queue.note("j")
        assert await queue.add(forward(3), "j") == "repeated"
        for name in ("i", "j"):
            assert SEEN_S - 60 < await client.ttl(keys.uplink_seen(name)) <= SEEN_S
        assert await client.llen(keys.forwards("钱包")) == 3

    played(server, script)


def test_a_line_that_is_far_behind_holds_up_no_other(server: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    async def script(_: Redis, queue: Forwards) -> None:
        monkeypatch.setattr(module, "MOST_WAITING", 2)
        assert [await queue.add(forward(n), f"i{n}") for n in range(3)] == ["queued", "queued", "full"]
        assert not await queue.seen("i2")
        assert await queue.add(forward(9, "b"), "i9") == "queued"
        taken = await queue.take(10, 1_000)
        assert taken is not None
        await queue.settle(taken, 10_000, 1)
        assert await queue.add(forward(4, taken.line), "i4") != "repeated"  # its time to wait stays
        other = await queue.take(10, 1_000)
        assert other is not None
        assert other.line != taken.line

    played(server, script)
