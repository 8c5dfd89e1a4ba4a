"""A queue that is fair to its lines: conserves what it holds, keeps each line's order, serves every line each round."""

from typing import Any

import hypothesis.strategies as st
from hypothesis import given
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from dispatcher.fair import QUANTUM, FairQueue

LINES = ("a", "b", "c", "d")
Item = tuple[str, int]
lines = st.sampled_from(LINES)


class FairMachine(RuleBasedStateMachine):
    """Against a list for each line."""

    def __init__(self) -> None:
        super().__init__()
        self.queue: FairQueue[Item] = FairQueue()
        self.model: dict[str, list[Item]] = {line: [] for line in LINES}
        self.taken: list[Item] = []
        self.number = 0

    @rule(line=lines, n=st.sampled_from([1, 3, QUANTUM, 4 * QUANTUM]))
    def append(self, line: str, n: int) -> None:
        for _ in range(n):
            item = line, self.number
            self.number += 1
            self.queue.append(line, item)
            self.model[line].append(item)

    @rule(most=st.sampled_from([0, 1, 7, QUANTUM, 3 * QUANTUM, 1_000]))
    def take(self, most: int) -> None:
        n = sum(map(len, self.model.values()))
        taken = self.queue.take(most)
        assert len(taken) == min(most, n)
        for line in LINES:
            mine = [item for item in taken if item[0] == line]
            assert mine == self.model[line][: len(mine)]
            del self.model[line][: len(mine)]
        self.taken += taken

    @precondition(lambda self: self.taken)
    @rule(data=st.data())
    def put_back(self, data: Any) -> None:
        """As the pump does: some of what was taken, in its order."""
        n = data.draw(st.integers(1, len(self.taken)))
        back, self.taken = self.taken[-n:], self.taken[:-n]
        for line, number in reversed(back):
            self.queue.put_back(line, (line, number))
            self.model[line].insert(0, (line, number))

    @invariant()
    def it_holds_what_the_lists_hold(self) -> None:
        held = list(self.queue)
        for line in LINES:
            assert [item for item in held if item[0] == line] == self.model[line]
        assert len(self.queue) == len(held) == sum(map(len, self.model.values()))
        assert bool(self.queue) == bool(held)

    @invariant()
    def an_empty_line_costs_nothing(self) -> None:
        assert self.queue._lines.keys() == {line for line in LINES if self.model[line]} == set(self.queue._round)


TestFairQueue = FairMachine.TestCase


@given(
    st.lists(st.tuples(lines, st.integers(0, 300)), max_size=8),
    st.lists(st.tuples(lines, st.integers(1, 200), st.integers(1, 120)), max_size=60),
)
def test_a_lone_message_goes_out_within_a_round_whatever_others_do(
    before: list[tuple[str, int]], steps: list[tuple[str, int, int]]
) -> None:
    queue: FairQueue[str] = FairQueue()
    for line, n in before:
        for _ in range(n):
            queue.append(line, line)
    queue.take(before[0][1] // 2 if before else 0)
    others = len(set(queue))
    queue.append("quiet", "quiet")
    ahead = 0
    for line, n, most in steps:
        for _ in range(n):
            queue.append(line, line)
        taken = queue.take(most)
        if "quiet" in taken:
            ahead += taken.index("quiet")
            break
        ahead += len(taken)
    assert ahead <= others * QUANTUM


@given(st.lists(st.integers(1, 300), min_size=1, max_size=40), st.integers(2, 4))
def test_lines_that_flood_get_the_same(takes: list[int], n_lines: int) -> None:
    queue: FairQueue[str] = FairQueue()
    for line in LINES[:n_lines]:
        for _ in range(sum(takes)):
            queue.append(line, line)
    got = dict.fromkeys(LINES[:n_lines], 0)
    for most in takes:
        for line in queue.take(most):
            got[line] += 1
        assert max(got.values()) - min(got.values()) <= QUANTUM


def test_a_line_that_is_alone_takes_all_and_its_turn_ends_with_it() -> None:
    queue: FairQueue[str] = FairQueue()
    for _ in range(1_000):
        queue.append("flood", "flood")
    assert len(queue.take(800)) == 800
    queue.append("quiet", "quiet")
    assert queue.take(800).index("quiet") == QUANTUM
