"""What a sender remembers of its messages' attempts, so that a repeated call never sends anything twice."""

import asyncio
from itertools import islice
from typing import Final

from msgspec import Struct

from dispatcher.message import Message
from dispatcher.outbox import EPOCH_SHIFT
from dispatcher.receipt import Receipt

REMEMBERED: Final = 65_536
_SLACK: Final = 4_096  # forgotten in strides, since finding the oldest entry of a dict costs a walk past its gaps


class Waiting:
    """One call that waits for its receipts; `done` is set when none is missing."""

    __slots__ = ("done", "missing", "receipts", "seconds", "sent")

    def __init__(self, n: int, done: asyncio.Future[None]) -> None:
        self.receipts: list[Receipt | None] = [None] * n
        self.missing = n
        self.done = done
        self.seconds = 0.0  # request time, summed over the messages that were sent
        self.sent = 0

    def put(self, place: int, receipt: Receipt | None) -> None:
        """The answer for one message."""
        self.receipts[place] = receipt
        self.missing -= 1
        if self.missing == 0 and not self.done.done():
            self.done.set_result(None)


class Slot(Struct, eq=False, gc=False):
    """A message's latest attempt here: in hand while `message` is there, else ended with `receipt`.

    Attempts up to `fence` are not sent any more. Attempt 0 with a fence: never seen, and recalled.
    One of these for every message, so it is a Struct, made in half the time of a class with `__slots__`, and unseen by
    the garbage collector: `end`, which always comes, breaks the only cycles it can be part of.
    """

    message: Message | None
    attempt: int
    waiting: Waiting | None = None
    place: int = 0
    fence: int = 0
    receipt: Receipt | None = None
    watchers: list[tuple[Waiting, int]] | None = None

    def tell(self, waiting: Waiting, place: int) -> None:
        """Another call wants this attempt's receipt."""
        if self.message is None:
            waiting.put(place, self.receipt)
        elif self.watchers is None:
            self.watchers = [(waiting, place)]
        else:
            self.watchers.append((waiting, place))

    def end(self, receipt: Receipt) -> None:
        """The attempt came to this."""
        waiting, watchers = self.waiting, self.watchers
        self.receipt = receipt
        self.message = self.waiting = self.watchers = None
        if waiting is not None:
            waiting.put(self.place, receipt)
        if watchers is not None:
            for other, place in watchers:
                other.put(place, receipt)


class Attempts:
    """The last 65,536 messages (and all that are in hand), each with its latest attempt."""

    def __init__(self, remembered: int = REMEMBERED) -> None:
        self._most = remembered + _SLACK
        self._slots: dict[str, Slot] = {}
        self.get = self._slots.get

    def __len__(self) -> int:
        return len(self._slots)

    def add(self, id_: str, slot: Slot) -> None:
        """A message's newest attempt; an older one of the same message makes way."""
        slots = self._slots
        slots.pop(id_, None)  # so that it counts as the youngest
        slots[id_] = slot
        if len(slots) > self._most:
            self._forget_oldest()

    def remember(self, id_: str, attempt: int, receipt: Receipt) -> None:
        """What an attempt of a former life came to. Of several the latest counts."""
        slot = self._slots.get(id_)
        if slot is None or slot.attempt < attempt:
            self.add(id_, Slot(None, attempt, receipt=receipt))

    def take_back(self, id_: str, slot: Slot) -> None:
        """The attempt ended unsent: as if it had never come, but for a fence."""
        if self._slots.get(id_) is not slot:
            return
        if slot.fence:
            slot.attempt = 0
            slot.receipt = None
        else:
            del self._slots[id_]

    def recall(self, id_: str, attempt: int) -> Slot | None:
        """The slot that tells what became of a message, None when it was not sent from here; fences its attempts.

        An older attempt of the same epoch says nothing: the caller had its receipt before it went on to this one.
        """
        slot = self._slots.get(id_)
        if slot is None:
            slot = Slot(None, 0)
            self.add(id_, slot)
        slot.fence = max(slot.fence, attempt)
        if slot.attempt == 0:
            return None
        older = slot.attempt < attempt and slot.attempt >> EPOCH_SHIFT == attempt >> EPOCH_SHIFT
        return None if older else slot

    def _forget_oldest(self) -> None:
        slots = self._slots
        for id_ in list(islice(slots, _SLACK)):
            slot = slots.pop(id_)
            if slot.message is not None:
                slots[id_] = slot
