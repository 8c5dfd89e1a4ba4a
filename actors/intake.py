"""The gateway's way to the shards: groups of orders are merged into calls, and repeated until they are answered."""

import asyncio
import logging
from collections.abc import Sequence
from typing import Final

import msgspec

from actors.ports import PeerAbsent, PeerGone, ShardPeer
from actors.tally import Tally
from dispatcher.answers import OVERLOADED, Answers, Result, SubmitCall, Want, body
from dispatcher.ident import partition_of
from dispatcher.trigger import Order

BATCH: Final = 800  # orders, about 150 KiB
LINGER_S: Final = 0.001
MOST_CALLS: Final = 8  # to one shard at once
PATIENCE_S: Final = 30.0

_log = logging.getLogger(__name__)
_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(list[Answers])


class _Group:
    __slots__ = ("answered", "orders", "want")

    def __init__(self, orders: list[Order], want: Want, answered: "asyncio.Future[Answers]") -> None:
        self.orders = orders
        self.want = want
        self.answered = answered


class ShardIntake:
    """`dispatcher.http.ports.Intake` over shard peers."""

    def __init__(self, shards: Sequence[ShardPeer], partitions: int, tally: Tally) -> None:
        self.shards = len(shards)
        self._peers = shards
        self._partitions = partitions
        self._tally = tally
        self._waiting: list[list[_Group]] = [[] for _ in shards]
        self._calls = [0] * len(shards)
        self._refusals: list[str | None] = [None] * len(shards)
        self._timers: list[asyncio.TimerHandle | None] = [None] * len(shards)
        self._tasks: set[asyncio.Task[None]] = set()

    def shard_of(self, identity: str) -> int:
        """The shard that owns this user."""
        return partition_of(identity, self._partitions) % self.shards

    async def submit(self, shard: int, orders: list[Order], want: Want) -> Answers:
        """The shard's answers to these orders, in their order."""
        refusal = self._refusals[shard]
        if refusal is not None:
            return _overloaded(orders, refusal)
        loop = asyncio.get_running_loop()
        group = _Group(orders, want, loop.create_future())
        self._waiting[shard].append(group)
        self._run(shard)
        return await group.answered

    def refused(self, n: int) -> None:
        """Count triggers that the gateway rejected itself."""
        self._tally.add("dispatcher_triggers", ("rejected",), n)

    def heed(self, shard: int, refusal: str | None) -> None:
        """Why a shard takes nothing for now, None when it does. Its calls may hang with its store, so those who come
        are told here instead of waiting behind them."""
        self._refusals[shard] = refusal
        if refusal is None:
            return
        waiting = self._waiting[shard]
        while waiting:
            group = waiting.pop(0)
            if not group.answered.done():
                group.answered.set_result(_overloaded(group.orders, refusal))

    def _run(self, shard: int, lingered: bool = False) -> None:
        loop = asyncio.get_running_loop()
        waiting = self._waiting[shard]
        while waiting and self._calls[shard] < MOST_CALLS:
            if self._calls[shard] and not lingered and sum(len(g.orders) for g in waiting) < BATCH:
                if self._timers[shard] is None:
                    self._timers[shard] = loop.call_later(LINGER_S, self._ring, shard)
                return
            groups = self._take(waiting)
            self._calls[shard] += 1
            task = loop.create_task(self._call(shard, groups))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            lingered = False

    def _ring(self, shard: int) -> None:
        self._timers[shard] = None
        self._run(shard, lingered=True)

    def _take(self, waiting: list[_Group]) -> list[_Group]:
        """Groups for one call: they want the same bodies and fit together."""
        groups = [waiting.pop(0)]
        size = len(groups[0].orders)
        while waiting and waiting[0].want == groups[0].want and size + len(waiting[0].orders) <= BATCH:
            size += len(waiting[0].orders)
            groups.append(waiting.pop(0))
        return groups

    async def _call(self, shard: int, groups: list[_Group]) -> None:
        try:
            answers = await self._answered(shard, [group.orders for group in groups], groups[0].want)
            for group, answer in zip(groups, answers, strict=True):
                if not group.answered.done():  # its caller may have gone
                    group.answered.set_result(answer)
        except Exception:  # a bug there: nobody knows what was taken, so the caller is asked to send it again
            _log.exception("intake: shard %d failed on a call", shard)
            for group in groups:
                if not group.answered.done():
                    group.answered.set_result(_overloaded(group.orders, "internal_error"))
        finally:
            self._calls[shard] -= 1
            self._run(shard)

    async def _answered(self, shard: int, groups: list[list[Order]], want: Want) -> list[Answers]:
        """Ask until the shard answers: it may have died after it took the orders, so repeats say that they are."""
        deadline = asyncio.get_running_loop().time() + PATIENCE_S
        resend = False
        while True:
            try:
                call = SubmitCall(groups, want, resend)
                return _decoder.decode(await self._peers[shard].submit(_encoder.encode(call)))
            except PeerGone as gone:
                resend = resend or not isinstance(gone, PeerAbsent)
                if asyncio.get_running_loop().time() > deadline:
                    return [_overloaded(orders, "shard_unavailable") for orders in groups]
                await asyncio.sleep(0.05)

    async def stop(self) -> None:
        """Wait until every call is answered."""
        while self._tasks:
            await asyncio.wait(self._tasks)


def _overloaded(orders: list[Order], why: str) -> Answers:
    bodies: list[bytes | None] = [body(Result(order.id, "overloaded", why)) for order in orders]
    return Answers(bytes([OVERLOADED]) * len(orders), bodies, {why: len(orders)}, 1.0)
