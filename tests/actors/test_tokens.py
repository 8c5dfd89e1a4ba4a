"""An access token is fetched once for all, early, and again when the vendor refuses it."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import pytest

from actors.ports import PeerGone
from actors.tokens import EARLY_S, PAUSE_S, TokenAnswer, Tokens
from channels.adapter import NoToken, NotWritten, Reply, Request, Token, Written
from channels.transport import Watch
from dispatcher.receipt import Answer
from tests.support import run, until

T0_S = 1_800_000_000.0


class Clock:
    def __init__(self) -> None:
        self.s = T0_S

    def __call__(self) -> float:
        return self.s


class Vendor:
    """Adapter and transport in one: gives `t1`, `t2` and so on, once `open` is set, or raises `breaks`."""

    def __init__(self, life_s: float = 7200.0, prefix: str = "t") -> None:
        self.asked = 0
        self.life_s = life_s
        self.prefix = prefix
        self.open = asyncio.Event()
        self.open.set()
        self.breaks: Exception | None = None

    def token_request(self, now_s: float) -> Request:
        return Request("POST", "http://vendor/token", {}, b"")

    def token_of(self, reply: Reply, now_s: float) -> Token:
        return Token(reply.body.decode(), now_s + self.life_s)

    def use(self, token: str) -> None: ...

    def is_stale(self, reply: Reply) -> bool:
        return False

    async def send(self, request: Request, timeout_s: float, watch: Watch | None = None) -> Reply:
        self.asked += 1
        number = self.asked
        await self.open.wait()
        if self.breaks is not None:
            raise self.breaks
        return Reply(200, {}, f"{self.prefix}{number}".encode())

    async def close(self) -> None: ...


class Pool:
    """Senders of one provider, the first of which fetches."""

    def __init__(self, others: int = 0, life_s: float = 7200.0) -> None:
        self.clock = Clock()
        self.vendor = Vendor(life_s)
        self.lent = 0
        self.gone = False
        self.first = Tokens(None, self.clock)
        self.others = [Tokens(self.call, self.clock) for _ in range(others)]
        for tokens in (self.first, *self.others):
            tokens.configure(self.vendor, self.vendor)

    async def call(self, stale: bytes, /) -> bytes:
        self.lent += 1
        if self.gone:
            raise PeerGone
        return await self.first.lend(stale)


def play(scene: Callable[[], Awaitable[None]]) -> None:
    async def whole() -> None:
        before = asyncio.all_tasks()
        await scene()
        assert asyncio.all_tasks() == before, "left behind"

    run(whole())


async def refused(tokens: Tokens, stale: str = "") -> tuple[Answer, str]:
    with pytest.raises(NoToken) as raised:
        await tokens.get(stale)
    return raised.value.answer, str(raised.value)


async def all_of(tokens: Sequence[Tokens], stale: str = "") -> set[str]:
    return set(await asyncio.gather(*(one.get(stale) for one in tokens)))


def test_many_requests_of_many_senders_ask_the_vendor_once() -> None:
    async def scene() -> None:
        pool = Pool(others=3)
        pool.vendor.open.clear()
        asking = asyncio.ensure_future(all_of([pool.first, *pool.others] * 20))
        await until(lambda: pool.vendor.asked == 1 and pool.lent == 3, "one request, and one call of each other sender")
        pool.vendor.open.set()
        assert await asking == {"t1"}
        assert await all_of([pool.first, *pool.others]) == {"t1"}
        assert (pool.vendor.asked, pool.lent) == (1, 3)

    play(scene)


@pytest.mark.parametrize(("life_s", "early_s"), [(7200.0, EARLY_S), (600.0, 60.0)])
def test_it_is_fetched_anew_before_it_runs_out(life_s: float, early_s: float) -> None:
    async def scene() -> None:
        pool = Pool(others=1, life_s=life_s)
        assert await all_of([pool.first, *pool.others]) == {"t1"}
        pool.clock.s = T0_S + life_s - early_s - 1
        assert await all_of([pool.first, *pool.others]) == {"t1"}
        pool.clock.s = T0_S + life_s - early_s
        assert await all_of([*pool.others, pool.first]) == {"t2"}

    play(scene)


def test_a_refused_token_is_replaced_once_for_all() -> None:
    async def scene() -> None:
        pool = Pool(others=2)
        senders = [pool.first, *pool.others]
        assert await all_of(senders) == {"t1"}
        assert await all_of(senders * 10, "t1") == {"t2"}
        assert await all_of(senders) == {"t2"}
        assert pool.vendor.asked == 2

    play(scene)


def test_a_vendor_that_refuses_what_it_just_gave_is_asked_now_and_then() -> None:
    async def scene() -> None:
        pool = Pool(others=1)
        assert await pool.others[0].get() == "t1"
        assert await pool.others[0].get("t1") == "t2"
        for _ in range(50):
            assert (await refused(pool.others[0], "t2"))[0] == "auth"
            assert (await refused(pool.first, "t2"))[0] == "auth"
        assert pool.vendor.asked == 2
        pool.clock.s += PAUSE_S
        assert await pool.others[0].get("t2") == "t3"

    play(scene)


@pytest.mark.parametrize(
    ("breaks", "answer", "why"),
    [
        (NotWritten("connect: refused"), "transient", "token: connect: refused"),
        (Written("timeout"), "transient", "token: no reply: timeout"),
        (NoToken("auth", "no token: invalid_client"), "auth", "no token: invalid_client"),
    ],
)
def test_no_token(breaks: Exception, answer: Answer, why: str) -> None:
    async def scene() -> None:
        pool = Pool(others=1)
        pool.vendor.breaks = breaks
        for _ in range(5):
            assert await refused(pool.others[0]) == (answer, why)
        assert await refused(pool.first) == (answer, why)
        assert pool.vendor.asked == 1, "not again within the pause"
        pool.vendor.breaks = None
        pool.clock.s += PAUSE_S
        assert await pool.others[0].get() == "t2"

    play(scene)


def test_the_old_one_serves_while_there_is_no_new_one() -> None:
    async def scene() -> None:
        pool = Pool()
        assert await pool.first.get() == "t1"
        pool.vendor.breaks = NotWritten("away")
        pool.clock.s = T0_S + 7200 - EARLY_S
        for _ in range(3):
            assert await pool.first.get() == "t1"
        assert pool.vendor.asked == 2
        assert (await refused(pool.first, "t1"))[0] == "transient", "unless the vendor refused it"
        pool.clock.s = T0_S + 7200
        assert (await refused(pool.first))[0] == "transient", "or it ran out"

    play(scene)


def test_the_first_sender_is_gone() -> None:
    async def scene() -> None:
        pool = Pool(others=1)
        pool.gone = True
        assert (await refused(pool.others[0]))[0] == "transient"
        pool.gone = False
        pool.clock.s += PAUSE_S
        assert await pool.others[0].get() == "t1"

    play(scene)


def test_not_configured_yet() -> None:
    async def scene() -> None:
        assert (await refused(Tokens(None, Clock())))[0] == "transient"

    play(scene)


def test_a_new_document_forgets_the_old_ones_token_and_failure() -> None:
    async def scene() -> None:
        pool, other = Pool(), Vendor(prefix="new")
        assert await pool.first.get() == "t1"
        pool.first.configure(other, other)
        assert await pool.first.get() == "new1"
        other.breaks = NoToken("auth", "wrong secret")
        assert (await refused(pool.first, "new1"))[0] == "auth"
        pool.first.configure(pool.vendor, pool.vendor)
        assert await pool.first.get() == "t2", "at once"

    play(scene)


@pytest.mark.parametrize("breaks", [None, NoToken("auth", "wrong secret")])
def test_what_comes_late_for_the_old_document_is_not_kept(breaks: Exception | None) -> None:
    async def scene() -> None:
        pool, other = Pool(), Vendor(prefix="new")
        pool.vendor.open.clear()
        pool.vendor.breaks = breaks
        asking = asyncio.ensure_future(refused(pool.first))
        await until(lambda: pool.vendor.asked == 1, "the old document's request")
        pool.first.configure(other, other)
        pool.vendor.open.set()
        assert (await asking)[0] == ("auth" if breaks else "transient")
        assert await pool.first.get() == "new1"

    play(scene)


def test_who_gives_up_waiting_leaves_the_others_their_token() -> None:
    async def scene() -> None:
        pool = Pool(others=1)
        pool.vendor.open.clear()
        one, two = (asyncio.ensure_future(pool.first.get()) for _ in range(2))
        await until(lambda: pool.vendor.asked == 1, "a request")
        one.cancel()
        pool.vendor.open.set()
        assert await two == "t2"
        with pytest.raises(asyncio.CancelledError):
            await one

    play(scene)


def test_tokens_are_not_shown() -> None:
    assert "hush" not in repr([Token("hush", T0_S), TokenAnswer("hush", T0_S)])
