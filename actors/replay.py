"""Sending dead letters again, at the shard that owns their users: decided as what falls due is, so no cap is exceeded.

A letter is gone by the same append that makes its new message durable, so whoever dies when, it is sent again once or
still there. What is being decided is held, so that a second call does not find it before that append.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from actors.profiles import Profiles
from actors.tenancy import Tenancy
from dispatcher.admission import Admission, Moment
from dispatcher.deadletter import Letter, ReplayCall, Replayed, again
from dispatcher.ident import place_of
from dispatcher.message import Message
from dispatcher.profile import Profile
from dispatcher.store.deadletters import DeadLetters
from dispatcher.store.errors import Away
from dispatcher.store.log import Log

_decoder: Final = msgspec.msgpack.Decoder(ReplayCall)
_encoder: Final = msgspec.msgpack.Encoder()

#: Whether there is room for one more such message, and enough left for those that come by themselves.
Room = Callable[[Message], bool]
#: Logs a moment's effects on a partition, and with them that the letters at these places are gone; sends what is to be.
Keep = Callable[[int, Moment, list[str]], None]


class Replay:
    """The dead letters of one shard that are on their way back."""

    def __init__(
        self,
        letters: DeadLetters,
        profiles: Profiles,
        admission: Admission,
        tenancy: Tenancy,
        log: Log,
        room: Room,
        keep: Keep,
        clock_ms: Callable[[], int],
    ) -> None:
        self._letters = letters
        self._profiles = profiles
        self._admission = admission
        self._tenancy = tenancy
        self._log = log
        self._room = room
        self._keep = keep
        self._clock_ms = clock_ms
        self._held: set[str] = set()

    def hold(self, ids: Iterable[str]) -> None:
        """These are not sent again until they are released."""
        self._held.update(ids)

    def release(self, ids: Iterable[str]) -> None:
        """Once all that was put into the log is durable these may be sent again, if their letters are still there."""
        freed = list(ids)

        def free(done: "asyncio.Future[None]") -> None:
            done.exception()  # of a partition that is another's now: so are its letters
            self._held.difference_update(freed)

        durable = self._log.durable()
        if durable.done():
            free(durable)
        else:
            durable.add_done_callback(free)

    async def replay(self, batch: bytes) -> bytes:
        """Send letters again; returns what became of them once that is durable."""
        call = _decoder.decode(batch)
        ids = [id_ for id_ in dict.fromkeys(call.ids) if id_ not in self._held]
        skipped = Counter({"in_progress": len(call.ids) - len(ids)})
        self.hold(ids)
        try:
            answer = await self._decided(ids, call.ttl_ms, skipped)
        finally:
            self.release(ids)
        await self._log.durable()
        return _encoder.encode(answer)

    async def _decided(self, ids: list[str], ttl_ms: int | None, skipped: Counter[str]) -> Replayed:
        try:
            letters = await self._letters.get(ids)
            users = {letter.message.user for letter in letters}
            missing = self._profiles.missing(users)
            fetched = await self._profiles.load(missing) if missing else {}
        except Away:
            return Replayed(skipped={"store_unavailable": len(ids)})
        skipped["gone"] = len(ids) - len(letters)
        blocked: Counter[str] = Counter()
        replayed = self._decide(letters, fetched, ttl_ms, blocked, skipped)
        return Replayed(replayed, dict(blocked), dict(+skipped))

    def _decide(
        self,
        letters: list[Letter],
        fetched: dict[str, Profile],
        ttl_ms: int | None,
        blocked: Counter[str],
        skipped: Counter[str],
    ) -> int:
        """Decide and queue them; nothing awaits in here. Returns how many are sent again."""
        now_ms = self._clock_ms()
        moments: dict[int, tuple[Moment, list[str]]] = {}
        for letter in letters:
            message = again(letter, now_ms, ttl_ms)
            number = _partition_of(message)
            why = self._not_now(message, number, now_ms)
            if why is not None:
                skipped[why] += 1
                continue
            at, removed = moments.setdefault(number, (Moment(self._tenancy.partitions[number], now_ms), []))
            profile = fetched.get(message.user or "") or self._profiles.get(message.user)
            before = _taken(at)
            self._admission.due(at, message, profile)
            if _taken(at) > before:
                removed.append(letter.place)
            else:
                blocked[at.effects.blocks[-1].objection.kind] += 1
        for number, (at, removed) in moments.items():
            self._keep(number, at, removed)
        return sum(len(removed) for _, removed in moments.values())

    def _not_now(self, message: Message, number: int, now_ms: int) -> str | None:
        partition = self._tenancy.partitions.get(number)
        if partition is None:
            return "moving"
        if partition.knows(message.identity, message.key, now_ms):
            return "replayed"
        return None if self._room(message) else "overloaded"


def _partition_of(message: Message) -> int:
    place = place_of(message.id)
    if place is None:
        raise ValueError(f"{message.id!r} is no message id")
    return place[0]


def _taken(at: Moment) -> int:
    """How many messages this moment has taken."""
    return len(at.effects.admitted) + len(at.effects.parked)
