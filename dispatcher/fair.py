"""Fairness between the lines of one queue: whoever floods it delays the others by one turn, not by the flood.

Source: Shreedhar and Varghese, "Efficient Fair Queuing Using Deficit Round Robin", IEEE/ACM Transactions on Networking
4(3), 1996. A message costs one, so only the turn that a full batch interrupts leaves a deficit to be remembered.
"""

from collections import deque
from collections.abc import Iterator
from typing import Final, Generic, TypeVar

T = TypeVar("T")

#: Messages of a line's turn. A full batch of a pump (800) serves 32 busy lines, at less than 0.1 us a message.
QUANTUM: Final = 25


class FairQueue(Generic[T]):
    """What waits, by line; each line in its order, the lines in turns. A line that has nothing here costs nothing."""

    __slots__ = ("_left", "_lines", "_n", "_round")

    def __init__(self) -> None:
        self._lines: dict[str, deque[T]] = {}
        self._round: deque[str] = deque()  # the line whose turn it is, then the others as they follow
        self._left = 0  # what is left of the turn; 0: it has not begun
        self._n = 0

    def __len__(self) -> int:
        return self._n

    def __iter__(self) -> Iterator[T]:
        for line in self._round:
            yield from self._lines[line]

    def append(self, line: str, item: T) -> None:
        """To the end of its line."""
        waiting = self._lines.get(line)
        if waiting is None:
            waiting = self._join(line)
        waiting.append(item)
        self._n += 1

    def put_back(self, line: str, item: T) -> None:
        """To the front of its line; a line that was empty has its turn after the others all the same."""
        waiting = self._lines.get(line)
        if waiting is None:
            waiting = self._join(line)
        waiting.appendleft(item)
        self._n += 1

    def take(self, most: int) -> list[T]:
        """Up to `most`, from each line at most `QUANTUM` while others wait; a line alone takes all."""
        taken: list[T] = []
        while self._round and len(taken) < most:
            room = most - len(taken)
            if len(self._round) > 1:
                self._left = self._left or QUANTUM
                room = min(room, self._left)
            taken += self._turn(room)
        self._n -= len(taken)
        return taken

    def _join(self, line: str) -> deque[T]:
        waiting: deque[T] = deque()
        self._lines[line] = waiting
        self._round.append(line)
        return waiting

    def _turn(self, most: int) -> deque[T] | list[T]:
        """Up to `most` of the line whose turn it is, which ends with the last of them or when the line is empty."""
        line = self._round[0]
        waiting = self._lines[line]
        if len(waiting) <= most:
            self._left = 0
            self._round.popleft()
            del self._lines[line]
            return waiting
        self._left = max(self._left - most, 0)
        if not self._left:
            self._round.rotate(-1)
        return [waiting.popleft() for _ in range(most)]
