"""The outbox: every accepted message from its admission to its end, by lane and channel. Lanes share nothing.

A lane's count includes what is being sent right now, so `full` bounds memory, not just the queue.
"""

import heapq
from collections import deque
from collections.abc import Iterable
from itertools import count
from typing import Final

from dispatcher.kinds import CHANNELS, LANES
from dispatcher.message import Message

#: Queues are numbered `lane * len(CHANNELS) + channel`, so urgent ones come first.
QUEUES: Final = len(LANES) * len(CHANNELS)
#: An attempt's number is the partition's epoch and, in its low bits, a count from 1: a new owner's attempts are never
#: taken for those of an older one. A million attempts are more than any message lives to see.
EPOCH_SHIFT: Final = 20
ATTEMPT_MASK: Final = (1 << EPOCH_SHIFT) - 1
CHANNEL_NUMBER: Final = {channel: i for i, channel in enumerate(CHANNELS)}


class Ticket:
    """One message on its way out: which attempt comes next, and where it failed already."""

    __slots__ = ("attempt", "maybe_sent", "message", "partition", "queue", "raw", "tried", "tries")

    def __init__(self, message: Message, partition: int, raw: bytes, attempt: int) -> None:
        self.message = message
        self.partition = partition
        self.raw = raw
        self.attempt = attempt
        self.tries = 0  # attempts that a provider has answered
        self.tried: tuple[str, ...] = ()
        self.maybe_sent = False  # an attempt's outcome is unknown: the slot stays taken
        self.queue = message.lane * len(CHANNELS) + CHANNEL_NUMBER[message.channel]


class Outbox:
    """Bounded queues of tickets; waiting ones (a retry's backoff) come due by themselves."""

    def __init__(self, max_messages: int) -> None:
        self.max_messages = max_messages
        self.counts = [0] * len(LANES)  # tickets not yet done, by lane
        self.queues: list[deque[Ticket]] = [deque() for _ in range(QUEUES)]
        self._later: list[tuple[int, int, Ticket]] = []
        self._order = count()

    @property
    def full(self) -> list[bool]:
        """Which lanes have no room for another message."""
        return [n >= self.max_messages for n in self.counts]

    def add(self, ticket: Ticket) -> None:
        """Take a new message at once. The caller asked `full` first; recovery may go over: accepted means accepted."""
        self.expect([ticket])
        self.queue([ticket])

    def expect(self, tickets: Iterable[Ticket]) -> None:
        """These take their room now and are queued later, once they are durable."""
        counts = self.counts
        for ticket in tickets:
            counts[ticket.message.lane] += 1

    def queue(self, tickets: Iterable[Ticket]) -> set[int]:
        """Queue tickets that were expected; returns the queues they joined."""
        queues, joined = self.queues, set()
        for ticket in tickets:
            queues[ticket.queue].append(ticket)
            joined.add(ticket.queue)
        return joined

    def take(self, queue: int, most: int) -> list[Ticket]:
        """Up to `most` tickets of a queue, oldest first. They stay counted until `done`."""
        tickets = self.queues[queue]
        if len(tickets) <= most:
            taken = list(tickets)
            tickets.clear()
            return taken
        return [tickets.popleft() for _ in range(most)]

    def put_back(self, tickets: Iterable[Ticket]) -> None:
        """Tickets that were taken and could not be sent go back to the front, in their order."""
        for ticket in reversed(list(tickets)):
            self.queues[ticket.queue].appendleft(ticket)

    def later(self, ticket: Ticket, at_ms: int) -> None:
        """A taken ticket waits until `at_ms`."""
        heapq.heappush(self._later, (at_ms, next(self._order), ticket))

    def wake(self, now_ms: int) -> set[int]:
        """Queue the tickets whose wait is over; returns the queues they joined."""
        woken = set()
        while self._later and self._later[0][0] <= now_ms:
            ticket = heapq.heappop(self._later)[2]
            self.queues[ticket.queue].append(ticket)
            woken.add(ticket.queue)
        return woken

    def done(self, ticket: Ticket) -> None:
        """The message has ended."""
        self.counts[ticket.message.lane] -= 1

    @property
    def waiting(self) -> int:
        """Tickets that wait for their time."""
        return len(self._later)

    @property
    def next_ms(self) -> int | None:
        """When the earliest waiting ticket comes due."""
        return self._later[0][0] if self._later else None
