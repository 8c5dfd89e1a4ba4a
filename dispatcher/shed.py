"""What a filling lane still takes: the lowest level is turned away first, and no line keeps the others out.

1. By level: each may fill its part of the lane, so what is left when the least important are turned away is for the
   others (load shedding by priority, Beyer et al., "Site Reliability Engineering", chapter 21, "Criticality").
2. By line: a line may hold at most `ALPHA` times what its level still has free. Source: Choudhury and Hahne, "Dynamic
   Queue Length Thresholds for Shared-Memory Packet Switches", IEEE/ACM Transactions on Networking 6(2), 1998.

Codes in the urgent lane are never turned away by level: what is free is theirs. But one line's flood of codes leaves
room for another line's code.
"""

from collections import Counter
from typing import Final

from dispatcher.kinds import LANES, URGENT

FULL: Final = "outbox_full"
LEVEL: Final = "shed_level"
LINE: Final = "line_share"

#: How much of a lane messages of levels 1 to 5 may fill.
FILLED: Final = (1.0, 0.95, 0.9, 0.8, 0.7)
#: A line alone fills ALPHA / (1 + ALPHA) of what there is, 90 %; n lines that flood leave 1 / (1 + n * ALPHA) free.
ALPHA: Final = 9.0
NEVER_SHED: Final = "verification"


class Occupancy:
    """How many messages each lane holds, and each line in it; and the bounds."""

    __slots__ = ("_limits", "_roomy", "counts", "lines", "max_messages")

    def __init__(self, max_messages: int) -> None:
        self.max_messages = max_messages
        self.counts = [0] * len(LANES)
        self.lines: list[dict[str, int]] = [{} for _ in LANES]  # of lines that have any
        parts = [max_messages * part for part in FILLED]
        self._limits = (max_messages, *[int(part) + (part > int(part)) for part in parts])  # by level, from 1
        self._roomy = int(min(self._limits) * ALPHA / (1 + ALPHA)) - 1

    def roomy(self, n: int) -> bool:
        """Whether so many more would find room whatever their lanes, levels and lines."""
        return max(self.counts) + n <= self._roomy

    def take(self, lane: int, line: str, n: int = 1) -> None:
        """So many more messages have come."""
        self.counts[lane] += n
        lines = self.lines[lane]
        lines[line] = lines.get(line, 0) + n

    def give(self, lane: int, line: str, n: int = 1) -> None:
        """So many messages have ended."""
        self.counts[lane] -= n
        lines = self.lines[lane]
        left = lines[line] - n
        if left:
            lines[line] = left
        else:
            del lines[line]

    def room(self, lane: int, type_: str, level: int, line: str) -> bool:
        """Whether one more message may come."""
        free = self._limits[0 if lane == URGENT and type_ == NEVER_SHED else level] - self.counts[lane]
        return free > 0 and self.lines[lane].get(line, 0) < ALPHA * free

    def why_not(self, lane: int, type_: str, level: int, line: str) -> tuple[str, float]:
        """Why there is no room, and how many messages of the lane must end before there is. Of these the line ends as
        many as its part of the lane: with `q` of `n` its own, `free` free and `d` ended, `q - d q / n < ALPHA (free +
        d)`."""
        n, q = self.counts[lane], self.lines[lane].get(line, 0)
        free = self._limits[0 if lane == URGENT and type_ == NEVER_SHED else level] - n
        above = 1.0 - free  # so many make room by level
        if n:
            above = max(above, (q - ALPHA * free) / (ALPHA + q / n))
        if n >= self.max_messages:
            return FULL, above
        return (LEVEL if free <= 0 else LINE), above

    def copy(self) -> "Occupancy":
        """The same, to count on by itself."""
        other = Occupancy(self.max_messages)
        other.counts = self.counts.copy()
        other.lines = [lines.copy() for lines in self.lines]
        return other


class Entrance:
    """Asked for each order of one call, and told what it brought: what a call has been let in counts for the rest."""

    __slots__ = ("_occupancy", "_parking", "above", "refused")

    def __init__(self, occupancy: Occupancy, parking: int) -> None:
        self._occupancy = occupancy.copy()
        self._parking = parking
        #: By (lane, level, reason).
        self.refused: Counter[tuple[int, int, str]] = Counter()
        #: By lane: how many messages must end there before the first of those refused finds room.
        self.above: dict[int, float] = {}

    @property
    def parking_full(self) -> bool:
        """No room for another message that is to wait for its time."""
        return self._parking <= 0

    def refuse(self, lane: int, type_: str, level: int, line: str) -> str | None:
        """Why a message for now has no room, if so."""
        if self._occupancy.room(lane, type_, level, line):
            return None
        why, above = self._occupancy.why_not(lane, type_, level, line)
        return self._refused(lane, level, why, above)

    def refuse_parking(self, lane: int, level: int) -> str | None:
        """Why a message for later has no room, if so. Nothing that ends makes room for it."""
        return self._refused(lane, level, FULL, float("inf")) if self.parking_full else None

    def let_in(self, lane: int, line: str, n: int, parked: int) -> None:
        """An order brought so many messages for now, and so many for later."""
        if n:
            self._occupancy.take(lane, line, n)
        self._parking -= parked

    def turn(self) -> dict[int, float]:
        """Begin another group of the call; returns what `above` was for the one before."""
        above, self.above = self.above, {}
        return above

    def _refused(self, lane: int, level: int, why: str, above: float) -> str:
        self.refused[lane, level, why] += 1
        self.above[lane] = min(above, self.above.get(lane, above))
        return why
