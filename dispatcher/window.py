"""How many messages of one queue may be in routers' hands at once: as many as are taken.

Additive increase, multiplicative decrease in the manner of Chiu and Jain, "Analysis of the Increase and Decrease
Algorithms for Congestion Avoidance in Computer Networks" (1989), but the decrease goes to what was taken, since the
answer says how much that was.
"""

from typing import Final

LEAST: Final = 32
STEP: Final = 16


class Window:
    """At most `most`; smaller while senders refuse part of what they are handed."""

    __slots__ = ("most", "size")

    def __init__(self, most: int) -> None:
        self.most = most
        self.size = most

    def room(self, in_hand: int) -> int:
        """How many the next call may carry. No more than half of the window, so that one call is on its way while
        another is being answered."""
        return min(self.size - in_hand, max(LEAST, self.size // 2))

    def answered(self, n: int, refused: int, in_hand: int) -> None:
        """A call of `n` came back with so many refused; `in_hand` were out, these included."""
        if refused:
            self.size = max(min(LEAST, self.most), min(self.size, in_hand - refused))
        else:
            self.size = min(self.most, self.size + max(STEP, n // 4))
