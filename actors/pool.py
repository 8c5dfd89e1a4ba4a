"""A provider's senders as one router sees them: who is there, who is gone, who has room."""

import asyncio
from collections.abc import Sequence
from random import Random
from typing import Final

import msgspec

from actors.ports import PeerGone, SenderPeer
from dispatcher.breaker import PROBE_S
from dispatcher.calls import Load, SendAnswer
from dispatcher.kinds import LANES

FULL_S: Final = 0.002  # a sender that refused a lane is not asked again for so long, or for as long as it says
LONGEST_FULL_S: Final = 1.0
GONE_S: Final = 0.25  # one that was gone is asked after so long
QUIET_S: Final = 0.25  # and one that is there, but has not said anything for so long
_send_decoder: Final = msgspec.msgpack.Decoder(SendAnswer)


class Seat:
    """One sender. `room` by lane is what it reported, less what was handed to it since.

    A sender that is `gone`, as one never heard of is, is asked without messages first: what is handed to one that dies
    meanwhile ends as `unknown`.
    """

    __slots__ = ("full_until_s", "gone", "heard_s", "load", "peer", "ping", "probe_at_s", "room", "seen_s", "tripped")

    def __init__(self, peer: SenderPeer) -> None:
        self.peer = peer
        self.load: Load | None = None
        self.room: list[float] = [float("inf")] * len(LANES)
        self.full_until_s = [0.0] * len(LANES)
        self.gone = True
        self.seen_s = float("-inf")  # when it was last found to be gone; never yet
        self.heard_s = float("-inf")
        self.tripped = False  # its requests fail
        self.probe_at_s = 0.0  # and it may be tried with one message then, where the others of its pool fare well
        self.ping: asyncio.Task[None] | None = None

    def takes(self, lane: int, now_s: float) -> bool:
        """Whether it may be handed messages of this lane."""
        return not self.gone and now_s >= self.full_until_s[lane]

    def hand(self, n: int) -> None:
        """So many messages are on their way to it."""
        self.room = [left - n for left in self.room]

    def report(self, lane: int, load: Load, refused: bool, now_s: float) -> None:
        """What its answer said. A lane that was refused bars the lanes after it too."""
        if load.leaving:  # what is in the air to it when it ends would be `unknown`
            self.lost(now_s)
            return
        self.gone = False
        self.load = load
        self.heard_s = now_s
        vitals = load.vitals
        self.tripped = bool(vitals.tripped)
        self.probe_at_s = now_s if vitals.streak > 0 else now_s - vitals.quiet_s + PROBE_S
        self.room[lane] = load.room
        if refused:
            until_s = now_s + min(max(load.retry_after_s, FULL_S), LONGEST_FULL_S)
            for barred in range(lane, len(LANES)):
                self.full_until_s[barred] = until_s

    def lost(self, now_s: float) -> None:
        """It did not answer."""
        self.gone = True
        self.load = None
        self.tripped = False
        self.room = [float("inf")] * len(LANES)
        self.seen_s = now_s


class Pool:
    """The seats of one provider's senders."""

    def __init__(self) -> None:
        self.seats: list[Seat] = []
        self._peers: tuple[SenderPeer, ...] = ()
        self._calls: dict[int, float] = {}  # calls that are out, oldest first, with their start
        self._turn = 0

    def refresh(self, peers: Sequence[SenderPeer]) -> bool:
        """These senders make up the pool now; known ones keep what is known of them. True when that is a change."""
        now = tuple(peers)
        if self._peers == now:
            return False
        known = {id(seat.peer): seat for seat in self.seats}
        self._peers = now
        self.seats = [known.get(id(peer)) or Seat(peer) for peer in peers]
        for seat in known.values():
            if seat not in self.seats and seat.ping is not None:
                seat.ping.cancel()
        return True

    def takes(self, lane: int, now_s: float) -> bool:
        """Whether any sender may be handed messages of this lane."""
        return any(seat.takes(lane, now_s) for seat in self.seats)

    def pick(self, lane: int, now_s: float, rng: Random, but: Seat | None = None) -> Seat | None:
        """The roomier of two senders drawn at random (Mitzenmacher, "The Power of Two Choices", 2001). One whose
        requests fail is picked only when those of all do."""
        seats = [seat for seat in self.seats if seat is not but and seat.takes(lane, now_s)]
        seats = [seat for seat in seats if not seat.tripped] or seats
        if len(seats) > 2:
            seats = rng.sample(seats, 2)
        if len(seats) < 2:
            return seats[0] if seats else None
        one, other = seats
        if one.room[lane] == other.room[lane]:
            return one if rng.random() < 0.5 else other
        return one if one.room[lane] > other.room[lane] else other

    def spread(self, n: int, seat: Seat, lane: int, now_s: float, but: Seat | None = None) -> list[tuple[Seat, int]]:
        """So many messages for this sender and, as far as it has no room by its last word, for others that have some.
        What a sender refuses comes back only with the receipts of what it took. What is over goes to this one."""
        if n <= seat.room[lane] or len(self.seats) == 1:
            return [(seat, n)]
        others = [one for one in self.seats if one not in (seat, but) and not one.tripped and one.takes(lane, now_s)]
        others.sort(key=lambda one: -one.room[lane])
        parts, left = [], n - max(int(seat.room[lane]), 0)
        for one in others:
            k = int(min(left, one.room[lane]))
            if k <= 0:
                break
            parts.append((one, k))
            left -= k
        own = n - sum(k for _, k in parts)
        return [(seat, own), *parts] if own else parts

    def probed(self, lane: int, now_s: float) -> Seat | None:
        """A sender whose requests fail and that should be tried with one message now; this claims the probe."""
        for seat in self.seats:
            if seat.tripped and now_s >= seat.probe_at_s and seat.takes(lane, now_s):
                seat.probe_at_s = now_s + PROBE_S
                return seat
        return None

    def begin(self, now_s: float) -> int:
        """A call goes out; `end` takes the number."""
        self._turn += 1
        self._calls[self._turn] = now_s
        return self._turn

    def end(self, call: int) -> None:
        """The call came back."""
        del self._calls[call]

    def waited_s(self, now_s: float) -> float:
        """How long the oldest call has been out."""
        return now_s - next(iter(self._calls.values())) if self._calls else 0.0

    def busy(self) -> tuple[int, int]:
        """Requests in the air and allowed, over all senders that have reported."""
        loads = [seat.load for seat in self.seats if seat.load is not None]
        return sum(load.in_flight for load in loads), sum(load.limit for load in loads)

    @property
    def hopeful(self) -> bool:
        """Whether any sender is there, or was not yet found to be gone."""
        return any(not seat.gone or seat.seen_s == float("-inf") for seat in self.seats)

    @property
    def present(self) -> int:
        """Senders not known to be gone."""
        return sum(not seat.gone for seat in self.seats)

    def missing(self, now_s: float) -> list[Seat]:
        """Senders that were gone a while ago and are not being asked yet."""
        return [seat for seat in self.seats if seat.gone and seat.ping is None and now_s >= seat.seen_s + GONE_S]

    def quiet(self, now_s: float) -> list[Seat]:
        """Senders that are there, have not been heard of for a while and are not being asked yet."""
        return [seat for seat in self.seats if not seat.gone and seat.ping is None and now_s >= seat.heard_s + QUIET_S]


async def ask(seat: Seat, empty_call: bytes) -> Load | None:
    """The load of a sender that was gone and is back: a call without messages costs nothing when it is not."""
    try:
        answer = _send_decoder.decode(await seat.peer.send(empty_call))
    except PeerGone:
        return None
    return None if answer.load.leaving else answer.load
