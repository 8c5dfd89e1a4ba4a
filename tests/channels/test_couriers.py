"""What holds for every courier, over real sockets: a receipt for each message, and the truth about what was written."""

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import msgspec
import pytest

from channels import ADAPTERS
from channels.adapter import NotWritten
from channels.courier import Courier
from dispatcher.message import Message
from dispatcher.receipt import Receipt
from tests.channels.apns import apple as apns
from tests.channels.messages import message
from tests.channels.p8 import P8
from tests.channels.smpp import centre as smpp
from tests.channels.smtp import post as smtp
from tests.servers import free_port
from tests.support import run, until

GARBAGE = b"\0\xff\xfe no protocol at all \r\n\r\n\x80" * 3


class Stage:
    """A vendor's stub and how to play on it. `hush` (says nothing to what it gets), `cut` (ends the connection instead
    of answering), `garble` (answers nonsense) change what it does from now on; `accept` undoes them."""

    def __init__(self, count: Callable[[], int], hush: Callable[[], None], cut: Callable[[], None],
                 garble: Callable[[], None], accept: Callable[[], None]) -> None:  # fmt: skip
        self.count = count  # messages it got
        self.hush = hush
        self.cut = cut
        self.garble = garble
        self.accept = accept


class Play:
    """One kind of courier; a new one adds its row to `PLAYS`."""

    def __init__(
        self,
        channel: str,
        to: Callable[[int], str],
        stage: Callable[[], AbstractAsyncContextManager[tuple[Stage, int]]],
        courier: Callable[[int], AbstractAsyncContextManager[Courier]],
        secret: str,
    ) -> None:
        self.channel = channel
        self.to = to
        self.stage = stage
        self.courier = courier
        self.secret = secret

    def messages(self, count: int, first: int = 0) -> list[Message]:
        return [message(f"m{n}", self.channel, to=self.to(n)) for n in range(first, first + count)]


@asynccontextmanager
async def _apns() -> AsyncIterator[tuple[Stage, int]]:
    async with apns.apple() as one:

        def does(act: Callable[[], object], said: apns.Says) -> Callable[[], None]:
            def says(n: int, asked: apns.Asked) -> apns.Says:
                act()
                return said

            return lambda: setattr(one, "says", says)

        stage = Stage(
            lambda: len(one.asked),
            does(lambda: None, None),
            does(one.cut, None),
            does(lambda: one.send(GARBAGE), None),
            does(lambda: None, (200, "")),
        )
        yield stage, one.port


@asynccontextmanager
async def _smtp() -> AsyncIterator[tuple[Stage, int]]:
    async with smtp.post() as one:

        async def hush(n: int, server: Any) -> str:
            await asyncio.Event().wait()
            return ""

        async def cut(n: int, server: Any) -> str:
            server.transport.abort()
            return await hush(n, server)

        async def garble(n: int, server: Any) -> str:
            server.transport.write(GARBAGE)
            return await hush(n, server)

        def does(says: Any) -> Callable[[], None]:
            return lambda: setattr(one, "says", says)

        yield Stage(lambda: len(one.mails), does(hush), does(cut), does(garble), does(one.take)), one.port


@asynccontextmanager
async def _smpp() -> AsyncIterator[tuple[Stage, int]]:
    async with smpp.centre() as one:

        def does(act: Callable[[], object], answers: bool) -> Callable[[], None]:
            def says(n: int) -> smpp.Says:
                act()
                return (0, f"id{n}") if answers else None

            return lambda: setattr(one, "says", says)

        stage = Stage(
            lambda: len(one.submitted),
            does(lambda: None, False),
            does(one.cut, False),
            does(lambda: one.send(GARBAGE), False),
            does(lambda: None, True),
        )
        yield stage, one.port


@asynccontextmanager
async def _smpp_courier(port: int) -> AsyncIterator[Courier]:
    one = smpp.Centre()
    one.port = port
    async with smpp.courier(one) as made:
        yield made


PLAYS: dict[str, Play] = {
    "apns": Play("push", lambda n: f"{n:064x}", _apns, apns.courier, "".join(P8.splitlines()[1:2])),
    "smtp": Play("email", lambda n: f"u{n}@example.org", _smtp, smtp.courier, smtp.PASSWORD),
    "smpp": Play("sms", lambda n: f"+86138000000{n:02}", _smpp, _smpp_courier, "hush"),
}


class Watched:
    """A watch that counts, or forbids."""

    def __init__(self, forbids: bool = False) -> None:
        self.begun = self.told = 0
        self._forbids = forbids

    def begin(self) -> None:
        if self._forbids:
            raise NotWritten("its share of the rate quota ran out")
        self.begun += 1

    def written(self) -> None:
        self.told += 1


def words(receipts: list[Receipt]) -> set[tuple[str, str]]:
    """Answers, each with how its code begins."""
    return {(receipt.answer, (receipt.code or "").partition(":")[0]) for receipt in receipts}


NOT_WRITTEN = {("transient", "not_written")}
NO_REPLY = {("unknown", "no_reply")}


def alone(scene: Coroutine[Any, Any, None]) -> None:
    """Plays it; no task is left behind."""

    async def whole() -> None:
        await scene
        await until(lambda: len(asyncio.all_tasks()) == 1, "no task is left")

    run(whole())
    gc.collect()  # an exception that nobody took would fail the test


@asynccontextmanager
async def dumb(says: bytes) -> AsyncIterator[int]:
    """A server of no protocol: it says one thing, and reads."""
    writers = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        writer.write(says)
        with contextlib.suppress(ConnectionError):
            while await reader.read(65536):
                pass
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        for writer in writers:
            writer.transport.abort()
        server.close()


def test_every_courier_plays() -> None:
    assert set(PLAYS) == {kind for kind, one in ADAPTERS.items() if one.open is not None}


@pytest.mark.parametrize("play", PLAYS.values(), ids=list(PLAYS))
class TestCourier:
    def test_a_receipt_for_each_message_in_order(self, play: Play) -> None:
        async def scene() -> None:
            async with play.stage() as (stage, port), play.courier(port) as ours:
                watch = Watched()
                batch = play.messages(20)
                receipts = await ours.send(batch, 10, watch)
                assert [receipt.id for receipt in receipts] == [one.id for one in batch]
                assert {(receipt.answer, receipt.provider, receipt.code) for receipt in receipts} == {
                    ("accepted", "p1", None)
                }
                assert len({receipt.ref for receipt in receipts}) == 20
                assert (watch.begun, stage.count()) == (1, 20)
                assert watch.told == 1
                msgspec.msgpack.encode(receipts)

        alone(scene())

    def test_many_at_once(self, play: Play) -> None:
        async def scene() -> None:
            async with play.stage() as (stage, port), play.courier(port) as ours:
                told = await asyncio.gather(*(ours.send(play.messages(2, 2 * n), 10) for n in range(30)))
                assert [receipt.id for some in told for receipt in some] == [f"m{n}" for n in range(60)]
                assert {receipt.answer for some in told for receipt in some} == {"accepted"}
                assert stage.count() == 60

        alone(scene())

    def test_nobody_listens(self, play: Play) -> None:
        async def scene() -> None:
            async with play.courier(free_port()) as ours:
                watch = Watched()
                assert words(await ours.send(play.messages(3), 10, watch)) == NOT_WRITTEN
                assert (watch.begun, watch.told) == (0, 0)

        alone(scene())

    @pytest.mark.parametrize("says", [b"", GARBAGE], ids=["silence", "garbage"])
    def test_a_server_of_no_protocol(self, play: Play, says: bytes) -> None:
        async def scene() -> None:
            async with dumb(says) as port, play.courier(port) as ours:
                watch = Watched()
                assert words(await ours.send(play.messages(3), 0.3, watch)) == NOT_WRITTEN
                assert (watch.begun, watch.told) == (0, 0)

        alone(scene())

    @pytest.mark.parametrize("fault", ["hush", "cut", "garble"])
    def test_no_answer_to_what_was_written(self, play: Play, fault: str) -> None:
        async def scene() -> None:
            async with play.stage() as (stage, port), play.courier(port) as ours:
                assert words(await ours.send(play.messages(1), 10)) == {("accepted", "")}
                getattr(stage, fault)()
                watch = Watched()
                receipts = await ours.send(play.messages(3, 1), 1 if fault == "hush" else 10, watch)
                assert [receipt.id for receipt in receipts] == ["m1", "m2", "m3"]
                assert words(receipts) <= NO_REPLY | NOT_WRITTEN
                unknown = sum(receipt.answer == "unknown" for receipt in receipts)
                assert 1 <= unknown <= 3
                assert stage.count() - 1 <= unknown  # whatever it got is not called unwritten
                assert watch.begun == 1
                stage.accept()

                async def mended() -> bool:
                    return words(await ours.send(play.messages(1, 9), 10)) == {("accepted", "")}

                await until(mended, "the courier is well again")

        alone(scene())

    def test_a_watch_may_forbid(self, play: Play) -> None:
        async def scene() -> None:
            async with play.stage() as (stage, port), play.courier(port) as ours:
                receipts = await ours.send(play.messages(3), 10, Watched(forbids=True))
                assert words(receipts) == NOT_WRITTEN
                assert {receipt.code for receipt in receipts} == {"not_written: its share of the rate quota ran out"}
                assert words(await ours.send(play.messages(1), 10)) == {("accepted", "")}
                assert stage.count() == 1

        alone(scene())

    def test_cancelling_leaves_nothing(self, play: Play) -> None:
        async def scene() -> None:
            async with play.stage() as (stage, port), play.courier(port) as ours:
                assert words(await ours.send(play.messages(1), 10)) == {("accepted", "")}
                stage.hush()
                sending = [asyncio.create_task(ours.send(play.messages(5, 5 * n), 10)) for n in range(4)]
                await until(lambda: stage.count() >= 10, "some are written")
                for task in sending:
                    task.cancel()
                done = await asyncio.gather(*sending, return_exceptions=True)
                assert all(isinstance(one, asyncio.CancelledError) for one in done)
                stage.accept()
                for n in range(3):  # its streams, windows and connections are free again
                    assert words(await ours.send(play.messages(20, 20 * n), 10)) == {("accepted", "")}

        alone(scene())

    def test_closing(self, play: Play) -> None:
        async def scene() -> None:
            async with play.stage() as (stage, port), play.courier(port) as ours:
                assert words(await ours.send(play.messages(1), 10)) == {("accepted", "")}
                stage.hush()
                sending = asyncio.create_task(ours.send(play.messages(1, 1), 10))
                await until(lambda: stage.count() == 2, "it is written")
                await ours.close()
                assert words(await sending) == NO_REPLY
                await ours.close()
                assert words(await ours.send(play.messages(1, 2), 10)) == NOT_WRITTEN
                assert stage.count() == 2

        alone(scene())

    def test_secrets_are_not_shown(self, play: Play, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(0)

        async def scene() -> None:
            async with play.stage() as (stage, port), play.courier(port) as ours:
                shown = repr([ours, vars(ours), await ours.send(play.messages(1), 10)])
                stage.cut()
                shown += repr(await ours.send(play.messages(1, 1), 1))
                assert play.secret not in shown

        alone(scene())
        assert play.secret not in caplog.text
