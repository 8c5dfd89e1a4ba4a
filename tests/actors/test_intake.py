"""The gateway's way to the shards: groups merged into calls, repeated until they are answered."""

import asyncio
from typing import Any, cast

import msgspec
import pytest

import actors.intake
from actors.intake import BATCH, MOST_CALLS, ShardIntake
from actors.ports import PeerGone
from actors.tally import Tally
from dispatcher.answers import ACCEPTED, OVERLOADED, Answers, SubmitCall, Want
from dispatcher.ident import partition_of
from dispatcher.intake import OVERLOAD_REASONS
from dispatcher.trigger import Order
from tests.actors.fakes import play, turns
from tests.support import until


class Call:
    def __init__(self, batch: bytes) -> None:
        self.call = msgspec.msgpack.decode(batch, type=SubmitCall)
        self.answered: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    @property
    def ids(self) -> list[list[str]]:
        return [[order.id for order in group] for group in self.call.groups]

    def answer(self) -> None:
        """Each order's id comes back as its body, so that a mix-up shows."""
        self.answered.set_result(msgspec.msgpack.encode([
            Answers(bytes([ACCEPTED]) * len(ids), [id_.encode() for id_ in ids]) for ids in self.ids
        ]))


class ScriptedShard:
    def __init__(self) -> None:
        self.calls: list[Call] = []

    async def submit(self, batch: bytes, /) -> bytes:
        self.calls.append(Call(batch))
        return await self.calls[-1].answered


class Desk:
    def __init__(self, shards: int = 1) -> None:
        self.shards = [ScriptedShard() for _ in range(shards)]
        self.intake = ShardIntake(cast(Any, self.shards), 8, Tally())
        self.calls = self.shards[0].calls

    def submit(self, *ids: str, shard: int = 0, want: Want = Want.ALL) -> "asyncio.Task[Answers]":
        return asyncio.create_task(self.intake.submit(shard, [order(id_) for id_ in ids], want))


def order(id_: str) -> Order:
    return Order(id_, "u", "u", "wallet", "notice", {})


def said(answers: Answers) -> list[str]:
    return [(body or b"").decode() for body in answers.bodies]


def test_the_first_group_goes_at_once_and_later_ones_are_merged() -> None:
    async def whole() -> None:
        desk = Desk()
        first = desk.submit("a")
        await turns(3)
        assert [call.ids for call in desk.calls] == [[["a"]]]
        others = [desk.submit(f"b{i}", f"c{i}") for i in range(5)]
        await until(lambda: len(desk.calls) == 2, "they lingered and left together")
        assert desk.calls[1].ids == [[f"b{i}", f"c{i}"] for i in range(5)]
        desk.calls[1].answer()
        for i, task in enumerate(others):
            assert said(await task) == [f"b{i}", f"c{i}"]
        desk.calls[0].answer()
        assert said(await first) == ["a"]
        await desk.intake.stop()

    play(whole())


def test_a_full_batch_does_not_linger(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actors.intake, "LINGER_S", 60.0)

    async def whole() -> None:
        desk = Desk()
        tasks = [desk.submit("a")]
        await turns(3)
        tasks += [desk.submit(*[f"{k}-{i}" for i in range(BATCH // 2)]) for k in range(2)]
        await turns(3)
        assert [sum(map(len, call.ids)) for call in desk.calls] == [1, BATCH]
        for call in desk.calls:
            call.answer()
        await asyncio.gather(*tasks)
        await desk.intake.stop()
        timer = desk.intake._timers[0]
        if timer is not None:
            timer.cancel()

    play(whole())


def test_a_call_never_holds_more_than_a_batch_and_only_groups_that_want_the_same() -> None:
    async def whole() -> None:
        desk = Desk()
        tasks = [desk.submit("first")]
        await turns(3)
        wants = [Want.ALL, Want.ALL, Want.NONE, Want.ALL]
        tasks += [desk.submit(*[f"{k}-{i}" for i in range(300)], want=want) for k, want in enumerate(wants)]
        await until(lambda: len(desk.calls) == 4, "all went")
        assert [(call.call.want, len(call.ids)) for call in desk.calls[1:]] == [(0, 2), (2, 1), (0, 1)]
        assert all(sum(map(len, call.ids)) <= BATCH for call in desk.calls)
        for call in desk.calls:
            call.answer()
        await asyncio.gather(*tasks)
        await desk.intake.stop()

    play(whole())


def test_so_many_calls_to_one_shard_and_no_more() -> None:
    async def whole() -> None:
        desk = Desk(shards=2)
        tasks = []
        for k in range(MOST_CALLS + 4):
            tasks.append(desk.submit(*[f"{k}-{i}" for i in range(BATCH)]))
            await turns(3)
        assert len(desk.calls) == MOST_CALLS
        other = desk.submit("x", shard=1)
        await turns(3)
        assert len(desk.shards[1].calls) == 1
        desk.shards[1].calls[0].answer()
        await other
        while not all(task.done() for task in tasks):
            open_ = [call for call in desk.calls if not call.answered.done()]
            assert len(open_) <= MOST_CALLS
            open_[0].answer()
            await turns(5)
        for k, task in enumerate(tasks):
            assert said(task.result()) == [f"{k}-{i}" for i in range(BATCH)]
        await desk.intake.stop()

    play(whole())


def test_a_shard_that_died_is_asked_again_and_told_so() -> None:
    async def whole() -> None:
        desk = Desk()
        task = desk.submit("a", "b")
        for n in range(2):
            await until(lambda n=n: len(desk.calls) == n + 1, "it asks")  # type: ignore[misc]
            desk.calls[n].answered.set_exception(PeerGone())
        await until(lambda: len(desk.calls) == 3, "it asks again")
        assert [call.call.resend for call in desk.calls] == [False, True, True]
        assert {str(call.ids) for call in desk.calls} == {str([["a", "b"]])}
        desk.calls[2].answer()
        assert said(await task) == ["a", "b"]
        await desk.intake.stop()

    play(whole())


def test_patience_ends_with_overloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actors.intake, "PATIENCE_S", 0.0)

    async def whole() -> None:
        desk = Desk()
        task = desk.submit("a", "b")
        await until(lambda: bool(desk.calls), "it asks")
        await asyncio.sleep(0.002)
        desk.calls[0].answered.set_exception(PeerGone())
        answers = await task
        assert answers.statuses == bytes([OVERLOADED] * 2)
        assert (answers.reasons, answers.retry_after_s) == ({"shard_unavailable": 2}, 1.0)
        told = [msgspec.json.decode(b"{" + (body or b"") + b"}") for body in answers.bodies]
        assert [(t["id"], t["status"], t["reason"]) for t in told] == [
            ("a", "overloaded", "shard_unavailable"), ("b", "overloaded", "shard_unavailable"),
        ]  # fmt: skip
        await desk.intake.stop()

    play(whole())


@pytest.mark.parametrize("broken", [b"\x93nonsense", msgspec.msgpack.encode([]), ZeroDivisionError("a bug there")])
def test_a_bug_in_a_shard_is_no_answer_of_accepted(broken: Any) -> None:
    async def whole() -> None:
        desk = Desk()
        task = desk.submit("a")
        await until(lambda: bool(desk.calls), "it asks")
        if isinstance(broken, Exception):
            desk.calls[0].answered.set_exception(broken)
        else:
            desk.calls[0].answered.set_result(broken)
        answers = await task
        assert answers.statuses == bytes([OVERLOADED])
        assert answers.reasons.keys() <= OVERLOAD_REASONS
        after = desk.submit("b")
        await until(lambda: len(desk.calls) == 2, "it goes on")
        desk.calls[1].answer()
        assert said(await after) == ["b"]
        await desk.intake.stop()

    play(whole())


def test_a_caller_that_went_away_disturbs_nobody() -> None:
    async def whole() -> None:
        desk = Desk()
        blocker = desk.submit("first")
        await turns(3)
        gone, stays = desk.submit("gone"), desk.submit("stays")
        await until(lambda: len(desk.calls) == 2, "both are on their way")
        gone.cancel()
        await turns(3)
        desk.calls[1].answer()
        assert said(await stays) == ["stays"]
        desk.calls[0].answer()
        await blocker
        await desk.intake.stop()

    play(whole())


def test_stop_waits_until_every_call_is_answered() -> None:
    async def whole() -> None:
        desk = Desk()
        tasks = [desk.submit("a")]
        await turns(3)
        tasks.append(desk.submit("b"))
        stopping = asyncio.create_task(desk.intake.stop())
        await until(lambda: len(desk.calls) == 2, "both went")
        assert not stopping.done()
        for call in desk.calls:
            call.answer()
        await stopping
        await asyncio.gather(*tasks)

    play(whole())


def test_users_belong_to_the_shard_of_their_partition() -> None:
    intake = ShardIntake(cast(Any, [ScriptedShard(), ScriptedShard(), ScriptedShard()]), 8, Tally())
    for i in range(50):
        assert intake.shard_of(f"u{i}") == partition_of(f"u{i}", 8) % 3
