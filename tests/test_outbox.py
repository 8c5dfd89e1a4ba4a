"""The outbox conserves messages: none is lost, none is there twice, each line of a queue keeps its order."""

from typing import Any

import hypothesis.strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from dispatcher.kinds import CHANNELS, LANES
from dispatcher.message import Message
from dispatcher.outbox import ATTEMPT_MASK, EPOCH_SHIFT, QUEUES, Outbox, Ticket

LINES = ("a", "b", "c")


def ticket(number: int, lane: int = 0, channel: str = "sms") -> Ticket:
    message = Message(
        f"m{number}", "t", "u", channel, "to", "notice", 3, lane, LINES[number % 3], "t", {}, {}, 0, 0, 1_000_000
    )  # fmt: skip
    return Ticket(message, 0, b"", 1)


def by_line(tickets: list[Ticket]) -> dict[str, list[Ticket]]:
    return {line: [one for one in tickets if one.message.line == line] for line in LINES}


class OutboxMachine(RuleBasedStateMachine):
    """Against plain lists: what is queued, in hand, waiting for its time, expected and done."""

    def __init__(self) -> None:
        super().__init__()
        self.outbox = Outbox(max_messages=10)
        self.number = 0
        self.now_ms = 0
        self.expected: list[Ticket] = []
        self.queued: list[list[Ticket]] = [[] for _ in range(QUEUES)]
        self.in_hand: list[Ticket] = []
        self.later: list[tuple[int, int, Ticket]] = []
        self.done: list[Ticket] = []

    def new(self, lane: int, channel: int, n: int) -> list[Ticket]:
        made = [ticket(self.number + i, lane, CHANNELS[channel]) for i in range(n)]
        self.number += n
        return made

    @initialize()
    def queues_are_numbered_by_urgency(self) -> None:
        assert [ticket(0, lane, c).queue for lane in range(len(LANES)) for c in CHANNELS] == list(range(QUEUES))

    @rule(lane=st.integers(0, 2), channel=st.integers(0, 4))
    def add(self, lane: int, channel: int) -> None:
        [one] = self.new(lane, channel, 1)
        self.outbox.add(one)
        self.queued[one.queue].append(one)

    @rule(lane=st.integers(0, 2), channel=st.integers(0, 4), n=st.integers(0, 4))
    def expect(self, lane: int, channel: int, n: int) -> None:
        some = self.new(lane, channel, n)
        self.outbox.expect(some)
        self.expected += some

    @rule()
    def queue_expected(self) -> None:
        some, self.expected = self.expected, []
        assert self.outbox.queue(some) == {one.queue for one in some}
        for one in some:
            self.queued[one.queue].append(one)

    @rule(queue=st.integers(0, QUEUES - 1), most=st.integers(0, 5))
    def take(self, queue: int, most: int) -> None:
        taken = self.outbox.take(queue, most)
        assert len(taken) == min(most, len(self.queued[queue]))
        assert by_line(taken) == {
            line: tickets[: len(by_line(taken)[line])] for line, tickets in by_line(self.queued[queue]).items()
        }
        for one in taken:
            self.queued[queue].remove(one)
        self.in_hand += taken

    @precondition(lambda self: self.in_hand)
    @rule(data=st.data())
    def put_back(self, data: Any) -> None:
        n = data.draw(st.integers(1, len(self.in_hand)))
        back, self.in_hand = self.in_hand[:n], self.in_hand[n:]
        self.outbox.put_back(iter(back))
        for one in reversed(back):
            self.queued[one.queue].insert(0, one)

    @precondition(lambda self: self.in_hand)
    @rule(wait_ms=st.integers(0, 100))
    def wait(self, wait_ms: int) -> None:
        one = self.in_hand.pop()
        self.outbox.later(one, self.now_ms + wait_ms)
        self.later.append((self.now_ms + wait_ms, len(self.later) + self.number * 1_000, one))

    @rule(ms=st.integers(0, 60))
    def time_passes(self, ms: int) -> None:
        self.now_ms += ms
        due = sorted((w for w in self.later if w[0] <= self.now_ms), key=lambda w: w[:2])
        self.later = [w for w in self.later if w[0] > self.now_ms]
        over = self.outbox.due(self.now_ms)
        assert over == [one for *_, one in due]
        assert self.outbox.queue(over) == {one.queue for one in over}
        for one in over:
            self.queued[one.queue].append(one)

    @precondition(lambda self: self.in_hand)
    @rule()
    def end(self) -> None:
        one = self.in_hand.pop(0)
        self.outbox.done([one])
        self.done.append(one)

    @invariant()
    def nothing_is_lost_and_every_queue_keeps_its_order(self) -> None:
        assert [by_line(list(queue)) for queue in self.outbox.queues] == [by_line(queue) for queue in self.queued]
        waiting = [one for *_, one in self.later]
        everywhere = [t for q in self.queued for t in q] + self.expected + self.in_hand + waiting + self.done
        assert sorted(t.message.id for t in everywhere) == sorted(f"m{i}" for i in range(self.number))

    @invariant()
    def lanes_count_what_has_not_ended(self) -> None:
        alive = [t for q in self.queued for t in q] + self.expected + self.in_hand + [one for *_, one in self.later]
        for lane in range(len(LANES)):
            n = sum(t.message.lane == lane for t in alive)
            assert self.outbox.counts[lane] == n
            mine = [t.message.line for t in alive if t.message.lane == lane]
            assert self.outbox.occupancy.lines[lane] == {line: mine.count(line) for line in mine}
            assert self.outbox.room_for(ticket(0, lane).message) == self.outbox.occupancy.room(lane, "notice", 3, "a")

    @invariant()
    def the_earliest_is_told(self) -> None:
        assert self.outbox.next_ms == min((at_ms for at_ms, *_ in self.later), default=None)


TestOutbox = OutboxMachine.TestCase


def test_attempts_of_a_later_epoch_are_always_greater() -> None:
    assert (3 << EPOCH_SHIFT | 1) > (2 << EPOCH_SHIFT | ATTEMPT_MASK)
    assert (7 << EPOCH_SHIFT | 5) & ATTEMPT_MASK == 5
