"""The messages a sender has taken and not answered: those in no request yet, by lane, and how many there are."""

from collections import deque
from typing import Final

from actors.attempts import Attempts, Slot, Waiting
from dispatcher.kinds import LANES
from dispatcher.message import Message
from dispatcher.receipt import Answer, Receipt


class Stock:
    """`in_hand` messages are not answered, `waiting` of them are in no request."""

    def __init__(self, attempts: Attempts) -> None:
        self.attempts: Final = attempts
        self.lanes: Final[tuple[deque[Slot], ...]] = tuple(deque() for _ in LANES)
        self.in_hand = 0
        self.waiting = 0

    def put(self, lane: int, message: Message, attempt: int, waiting: Waiting, place: int) -> None:
        """Take a message whose attempt is new."""
        slot = Slot(message, attempt, waiting, place)
        self.attempts.add(message.id, slot)
        self.lanes[lane].append(slot)
        self.in_hand += 1
        self.waiting += 1

    def before(self, lane: int) -> int:
        """Messages in no request that go before a new one of this lane."""
        return sum([len(ready) for ready in self.lanes[: lane + 1]])

    def pick(self, lane: int, most: int, now_ms: int) -> list[Slot]:
        """Up to `most` messages for a request, oldest first; expired ones end here."""
        ready = self.lanes[lane]
        slots: list[Slot] = []
        while ready and len(slots) < most:
            slot = ready.popleft()
            if slot.message is not None and slot.message.expires_ms <= now_ms:
                self._end_unsent(slot, "transient", "expired")
            else:
                slots.append(slot)
        self.waiting -= len(slots)
        return slots

    def end(self, slots: list[Slot], receipts: list[Receipt], seconds: float) -> None:
        """A request that took `seconds` came to these receipts."""
        self.in_hand -= len(slots)
        for slot, receipt in zip(slots, receipts, strict=True):
            waiting = slot.waiting
            if waiting is not None:
                waiting.seconds += seconds
                waiting.sent += 1
            slot.end(receipt)

    def give_back(self) -> None:
        """What is in no request goes elsewhere."""
        for ready in self.lanes:
            while ready:
                self._end_unsent(ready.popleft(), "refused", None)

    def _end_unsent(self, slot: Slot, answer: Answer, code: str | None) -> None:
        message = slot.message
        if message is None:
            raise RuntimeError("a message ended while it waited")
        self.in_hand -= 1
        self.waiting -= 1
        slot.end(Receipt(message.id, answer, code=code))
        self.attempts.take_back(message.id, slot)
