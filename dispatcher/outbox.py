"""The outbox: every accepted message from its admission to its end, by lane and channel. Lanes share nothing.

A lane's count includes what is being sent right now, so its bound holds for memory, not just for the queue.
"""

import heapq
from collections import Counter
from collections.abc import Iterable
from itertools import count
from typing import Final

from dispatcher.fair import FairQueue
from dispatcher.kinds import CHANNELS, LANES
from dispatcher.message import Message
from dispatcher.shed import Occupancy

#: Queues are numbered `lane * len(CHANNELS) + channel`, so urgent ones come first.
QUEUES: Final = len(LANES) * len(CHANNELS)
#: An attempt's number is the partition's epoch and, in its low bits, a count from 1: a new owner's attempts are never
#: taken for those of an older one. A million attempts are more than any message lives to see.
EPOCH_SHIFT: Final = 20
ATTEMPT_MASK: Final = (1 << EPOCH_SHIFT) - 1
CHANNEL_NUMBER: Final = {channel: i for i, channel in enumerate(CHANNELS)}


class Ticket:
    """One message on its way out: which attempt comes next, and where it failed already."""

    __slots__ = (
        "attempt", "delayed", "maybe_sent", "message", "owes", "partition", "queue", "raw", "tried", "tries",
    )  # fmt: skip

    def __init__(self, message: Message, partition: int, raw: bytes, attempt: int) -> None:
        self.message = message
        self.partition = partition
        self.raw = raw
        self.attempt = attempt
        self.tries = 0  # attempts that a provider has answered
        self.tried: tuple[str, ...] = ()
        self.maybe_sent = False  # an attempt's outcome is unknown: the slot stays taken
        self.owes = False  # its next attempt is a retry that is not paid for yet
        self.delayed = False  # and there was no budget for it
        self.queue = message.lane * len(CHANNELS) + CHANNEL_NUMBER[message.channel]


class Outbox:
    """Bounded queues of tickets, fair to the lines in each; waiting ones (a retry's backoff) come due by themselves."""

    def __init__(self, max_messages: int) -> None:
        self.occupancy = Occupancy(max_messages)
        self.counts = self.occupancy.counts  # tickets not yet done, by lane
        self.queues: list[FairQueue[Ticket]] = [FairQueue() for _ in range(QUEUES)]
        self._later: list[tuple[int, int, Ticket]] = []
        self._order = count()

    def add(self, ticket: Ticket) -> None:
        """Take a new message at once. Its caller asked for room; recovery may go over: accepted means accepted."""
        self.expect([ticket])
        self.queue([ticket])

    def room_for(self, message: Message) -> bool:
        """Whether the message may join."""
        return self.occupancy.room(message.lane, message.type, message.level, message.line)

    def expect(self, tickets: Iterable[Ticket]) -> None:
        """These take their room now and are queued later, once they are durable."""
        for (lane, line), n in _by_line(tickets).items():
            self.occupancy.take(lane, line, n)

    def queue(self, tickets: Iterable[Ticket]) -> set[int]:
        """Queue tickets that were expected; returns the queues they joined."""
        queues, joined = self.queues, set()
        for ticket in tickets:
            queues[ticket.queue].append(ticket.message.line, ticket)
            joined.add(ticket.queue)
        return joined

    def take(self, queue: int, most: int) -> list[Ticket]:
        """Up to `most` tickets of a queue, its lines in turns, each oldest first. They stay counted until `done`."""
        return self.queues[queue].take(most)

    def put_back(self, tickets: Iterable[Ticket]) -> None:
        """Tickets that were taken and could not be sent go back to the front of their lines, in their order."""
        for ticket in reversed(list(tickets)):
            self.queues[ticket.queue].put_back(ticket.message.line, ticket)

    def later(self, ticket: Ticket, at_ms: int) -> None:
        """A taken ticket waits until `at_ms`."""
        heapq.heappush(self._later, (at_ms, next(self._order), ticket))

    def due(self, now_ms: int) -> list[Ticket]:
        """The tickets whose wait is over, the earliest first; they wait no more, and are to be queued."""
        over = []
        while self._later and self._later[0][0] <= now_ms:
            over.append(heapq.heappop(self._later)[2])
        return over

    def done(self, tickets: Iterable[Ticket]) -> None:
        """These messages have ended."""
        for (lane, line), n in _by_line(tickets).items():
            self.occupancy.give(lane, line, n)

    @property
    def waiting(self) -> int:
        """Tickets that wait for their time."""
        return len(self._later)

    @property
    def next_ms(self) -> int | None:
        """When the earliest waiting ticket comes due."""
        return self._later[0][0] if self._later else None


def _by_line(tickets: Iterable[Ticket]) -> Counter[tuple[int, str]]:
    return Counter([(ticket.message.lane, ticket.message.line) for ticket in tickets])
