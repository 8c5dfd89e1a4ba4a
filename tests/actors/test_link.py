"""The link: one request for all messages, one for each part, with a token, or a courier's own way."""

import asyncio
from collections.abc import Callable, Sequence

import pytest

from actors.link import Link
from actors.tokens import Tokens
from channels.adapter import NoToken, NotWritten, Reply, Request, Token, Unsendable, Written
from channels.courier import Inbox
from channels.transport import Watch
from dispatcher.message import Message
from dispatcher.receipt import Receipt
from tests.channels.messages import messages
from tests.support import run, until

NOW_S = 1_800_000_000.0


class Plain:
    """Adapter and transport in one. `script` gives a reply's status for a request's ids, or raises."""

    def __init__(self, script: Callable[[list[str]], int] = lambda ids: 200) -> None:
        self.script = script
        self.requests: list[list[str]] = []
        self.open = asyncio.Event()
        self.open.set()
        self.closed = 0

    def request(self, some: Sequence[Message], now_s: float) -> Request:
        if any(message.id == "m9" for message in some):
            raise KeyError("a bug")
        if any(message.id == "m8" for message in some):
            raise Unsendable("rejected", "no_template")
        return Request("POST", "http://x", {}, " ".join(message.id for message in some).encode())

    def receipts(self, some: Sequence[Message], reply: Reply, now_s: float) -> list[Receipt]:
        answer = {200: "accepted", 401: "auth", 500: "transient"}[reply.status]
        return [Receipt(m.id, answer, "p", f"{reply.body.decode()}/{m.id}") for m in some]  # type: ignore[arg-type]

    async def send(self, request: Request, timeout_s: float, watch: Watch | None = None) -> Reply:
        ids = request.body.decode().split()
        self.requests.append(ids)
        if watch is not None:
            watch.begin()
        await self.open.wait()
        status = self.script(ids)
        if watch is not None:
            watch.written()
        return Reply(status, {}, "+".join(ids).encode())

    async def close(self) -> None:
        self.closed += 1


class Split(Plain):
    """Odd and even places do not go together."""

    def parts(self, some: Sequence[Message]) -> list[list[int]]:
        places = range(len(some))
        return [part for part in (list(places[1::2]), list(places[::2])) if part]


class Tokened(Plain):
    """A status of 401 is a stale token; `granted` are the tokens, in order."""

    def __init__(self, script: Callable[[list[str]], int] = lambda ids: 200, granted: Sequence[str] = "abcd") -> None:
        super().__init__(script)
        self.granted = iter(granted)
        self.tokens: list[str] = []

    def token_request(self, now_s: float) -> Request:
        return Request("POST", "http://x/token", {}, b"token")

    def token_of(self, reply: Reply, now_s: float) -> Token:
        self.requests.pop()
        token = next(self.granted, "")
        if not token:
            raise NoToken("auth", "no token: invalid_client")
        return Token(token, now_s + 7200)

    def use(self, token: str) -> None:
        self.tokens.append(token)

    def is_stale(self, reply: Reply) -> bool:
        return reply.status == 401


class TokenedSplit(Tokened, Split):
    """Both."""


class Watched:
    def __init__(self) -> None:
        self.told: list[str] = []

    def begin(self) -> None:
        self.told.append("begin")

    def written(self) -> None:
        self.told.append("written")


def link_of(there: Plain) -> Link:
    tokens = Tokens(None, lambda: NOW_S)
    return Link("p", (there, there), 5.0, tokens)


async def exchanged(there: Plain, count: int, watch: Watch | None = None) -> list[Receipt]:
    return await link_of(there).exchange(messages(count), lambda: int(NOW_S * 1000), watch)


def answers(there: Plain, count: int = 1) -> list[str]:
    receipts = run(exchanged(there, count))
    assert [receipt.id for receipt in receipts] == [f"m{i}" for i in range(count)]
    assert {receipt.provider for receipt in receipts} <= {"p"}
    return [receipt.answer for receipt in receipts]


def fail(error: Exception, *which: str) -> Callable[[list[str]], int]:
    def script(ids: list[str]) -> int:
        if not which or ids[0] in which:
            raise error
        return 200

    return script


class TestParts:
    def test_receipts_come_back_in_the_messages_order(self) -> None:
        there = Split()
        refs = [receipt.ref for receipt in run(exchanged(there, 5))]
        assert refs == ["m0+m2+m4/m0", "m1+m3/m1", "m0+m2+m4/m2", "m1+m3/m3", "m0+m2+m4/m4"]
        assert sorted(there.requests) == [["m0", "m2", "m4"], ["m1", "m3"]]

    def test_they_are_in_the_air_together(self) -> None:
        async def scene() -> None:
            there = Split()
            there.open.clear()
            one = asyncio.ensure_future(exchanged(there, 4))
            await until(lambda: len(there.requests) == 2, "both parts")
            there.open.set()
            assert len(await one) == 4

        run(scene())

    @pytest.mark.parametrize(
        ("error", "answer"),
        [(NotWritten("x"), "transient"), (Written("x"), "unknown"), (RuntimeError("bug"), "unknown")],
    )
    def test_a_part_that_fails_fails_alone(self, error: Exception, answer: str) -> None:
        assert answers(Split(fail(error, "m1")), 4) == ["accepted", answer, "accepted", answer]

    def test_a_part_that_cannot_be_made_was_not_sent(self) -> None:
        assert answers(Split(), 10) == ["rejected", "transient"] * 5
        assert answers(Split(), 9) == ["rejected", "accepted"] * 4 + ["rejected"]

    def test_no_messages_no_request(self) -> None:
        there = Split()
        assert answers(there, 0) == []
        assert there.requests == []

    def test_written_is_told_once_all_parts_are(self) -> None:
        async def scene() -> None:
            there, watch = Split(), Watched()
            await exchanged(there, 4, watch)
            assert watch.told == ["begin", "begin", "written"]
            watch = Watched()
            await exchanged(Split(fail(Written("reset"), "m1")), 4, watch)
            assert "written" not in watch.told, "who gave the watch closes it"

        run(scene())

    def test_adapters_that_lose_messages_are_found_out(self) -> None:
        class Loses(Split):
            def parts(self, some: Sequence[Message]) -> list[list[int]]:
                return [[0], [2]]

        assert answers(Loses(), 3) == ["accepted", "transient", "accepted"]


class TestTokens:
    def test_each_request_carries_the_token(self) -> None:
        async def scene() -> None:
            there = Tokened()
            link = link_of(there)
            for _ in range(3):
                await link.exchange(messages(2), lambda: int(NOW_S * 1000))
            assert there.tokens == ["a"] * 3

        run(scene())

    def test_a_stale_one_is_replaced_and_the_request_repeated_once(self) -> None:
        statuses = iter([401, 200])
        there = Tokened(lambda ids: 200 if ids == ["token"] else next(statuses))
        assert answers(there) == ["accepted"]
        assert there.tokens == ["a", "b"]
        assert there.requests == [["m0"], ["m0"]]

    def test_not_twice(self) -> None:
        there = Tokened(lambda ids: 200 if ids == ["token"] else 401)
        assert answers(there) == ["auth"]
        assert there.requests == [["m0"], ["m0"]]

    def test_parts_share_the_replacement(self) -> None:
        there = TokenedSplit()
        there.script = lambda ids: 200 if ids == ["token"] or there.tokens[-1] == "b" else 401
        watch = Watched()
        receipts = run(exchanged(there, 4, watch))
        assert [receipt.answer for receipt in receipts] == ["accepted"] * 4
        assert next(there.granted) == "c", "two were granted"
        assert watch.told.count("written") == 1

    @pytest.mark.parametrize(
        ("script", "granted", "answer"),
        [
            (lambda ids: 200, "", "auth"),
            (fail(NotWritten("away"), "token"), "a", "transient"),
            (fail(Written("timeout"), "token"), "a", "transient"),
            (fail(Written("timeout"), "m0"), "a", "unknown"),
            (fail(NotWritten("away"), "m0"), "a", "transient"),
        ],
    )
    def test_what_failures_come_to(self, script: Callable[[list[str]], int], granted: str, answer: str) -> None:
        there = Tokened(script, granted)
        assert answers(there, 2) == [answer] * 2
        if granted == "":
            assert there.requests == []

    def test_a_request_that_cannot_be_made_was_not_sent(self) -> None:
        assert answers(Tokened(), 10) == ["transient"] * 10
        assert answers(Tokened(), 9) == ["rejected"] * 9


class Sings:
    """A courier."""

    def __init__(self, says: Callable[[Sequence[Message]], list[Receipt]]) -> None:
        self.says = says
        self.closed = 0

    async def send(self, some: Sequence[Message], timeout_s: float, watch: Watch | None = None) -> list[Receipt]:
        return self.says(some)

    def listen(self, inbox: Inbox) -> None: ...

    async def close(self) -> None:
        self.closed += 1


class TestCourier:
    def test_its_receipts_count_and_miscounts_are_bugs(self) -> None:
        async def scene() -> None:
            courier = Sings(lambda some: [Receipt(m.id, "accepted", "p") for m in some])
            link = Link("p", courier, 5.0)
            told = await link.exchange(messages(2), lambda: 0)
            assert [r.answer for r in told] == ["accepted"] * 2
            courier.says = lambda some: []
            assert [r.answer for r in await link.exchange(messages(2), lambda: 0)] == ["unknown"] * 2
            await link.retire()
            assert courier.closed == 1

        run(scene())


def test_a_retired_link_closes_once_nothing_is_in_the_air() -> None:
    async def scene() -> None:
        there = Split()
        there.open.clear()
        link = link_of(there)
        one = asyncio.ensure_future(link.exchange(messages(4), lambda: 0))
        await until(lambda: len(there.requests) == 2, "in the air")
        await link.retire()
        assert there.closed == 0
        there.open.set()
        await one
        assert there.closed == 1

    run(scene())
