"""Triggers sorted into groups of orders for the shards, and what a shard answered to one of them."""

from collections.abc import Callable, Iterable
from typing import Final

import msgspec
from msgspec import Struct

from dispatcher.answers import OVERLOADED, REJECTED, Answers
from dispatcher.http.ports import Intake
from dispatcher.http.wire import Bad, rejection
from dispatcher.intake import OVERLOAD_REASONS, order_of
from dispatcher.trigger import Order, Trigger

_quote: Final = msgspec.json.Encoder().encode


class Group(Struct, gc=False):
    """Orders for one shard with their places in the caller's sequence."""

    shard: int
    seqs: list[int] = []
    orders: list[Order] = []


class Rejects(Struct, gc=False):
    """What no shard needs to see, with its places in the caller's sequence."""

    seqs: list[int] = []
    items: list[Bad] = []

    def answers(self, bodies: bool) -> Answers:
        """The gateway's own answers, in the shape of a shard's."""
        reasons: dict[str, int] = {}
        for item in self.items:
            reasons[item.reason] = reasons.get(item.reason, 0) + 1
        made = [rejection(item) if bodies else None for item in self.items]
        return Answers(bytes([REJECTED]) * len(self.items), made, reasons)


class Sorter:
    """Makes orders of triggers and sorts them by shard. `line`: the only line the caller may use, if there is one;
    `counted`: whether what is rejected at the door goes into the metrics."""

    def __init__(
        self,
        intake: Intake,
        line: str | None,
        new_id: Callable[[], str],
        region: str,
        group_orders: int,
        counted: bool = True,
    ) -> None:
        self._intake = intake
        self._line = line
        self._new_id = new_id
        self._region = region
        self._group_orders = group_orders
        self._counted = counted

    def sort(self, triggers: Iterable[Trigger | Bad], seq: int) -> tuple[list[Group], Rejects]:
        """Groups of at most `group_orders`, and what is rejected at the door. The first trigger has the place `seq`."""
        line, new_id, region, most = self._line, self._new_id, self._region, self._group_orders
        shard_of = self._intake.shard_of
        open_: list[Group | None] = [None] * self._intake.shards
        groups: list[Group] = []
        rejects = Rejects()
        for seq_, trigger in enumerate(triggers, seq):
            order = trigger if type(trigger) is Bad else order_of(trigger, line, new_id, region)  # type: ignore[arg-type]
            if type(order) is not Order:
                rejects.seqs.append(seq_)
                rejects.items.append(order if type(order) is Bad else Bad(trigger.id, order))  # type: ignore[arg-type]
                continue
            shard = shard_of(order.identity)
            group = open_[shard]
            if group is None or len(group.orders) >= most:
                group = open_[shard] = Group(shard)
                groups.append(group)
            group.seqs.append(seq_)
            group.orders.append(order)
        if rejects.items and self._counted:
            self._intake.refused(len(rejects.items))
        return groups, rejects


def overloaded(orders: list[Order], reason: str) -> Answers:
    """The answers to orders that no shard answered: resending them under their ids is safe."""
    bodies: list[bytes | None] = [
        b'"id":%b,"status":"overloaded","reason":"%b","messages":[]' % (_quote(order.id), reason.encode())
        for order in orders
    ]
    return Answers(bytes([OVERLOADED]) * len(orders), bodies, {reason: len(orders)}, 1.0)


def part(group: Group, answers: Answers) -> tuple[Group, Answers, Group]:
    """What is answered for good, with its answers, and what was overloaded and may be asked again."""
    done, again = Group(group.shard), Group(group.shard)
    statuses, bodies = bytearray(), []
    for i, status in enumerate(answers.statuses):
        into = again if status == OVERLOADED else done
        into.seqs.append(group.seqs[i])
        into.orders.append(group.orders[i])
        if into is done:
            statuses.append(status)
            bodies.append(answers.bodies[i])
    if not done.orders:
        return done, Answers(b"", []), again
    reasons = {reason: n for reason, n in answers.reasons.items() if reason not in OVERLOAD_REASONS}
    return done, Answers(bytes(statuses), bodies, reasons), again


def split(group: Group, size: int) -> tuple[Group, Group]:
    """The first `size` of a group, and the others."""
    first = Group(group.shard, group.seqs[:size], group.orders[:size])
    return first, Group(group.shard, group.seqs[size:], group.orders[size:])
