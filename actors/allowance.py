"""A sender's part of its provider's rate quota: leased from the pool's first sender, and told of every write.

The first sender lends, since every pool has one, Ray restarts it under the same name, and every sender can work out who
it is: an election would be one more thing to go wrong, and a store that is away must not stop the sending.
"""

import asyncio
import logging
import secrets
from collections.abc import Callable
from math import inf
from typing import Final

import msgspec

from actors.ending import end
from actors.ports import Call, PeerGone
from channels.adapter import NotWritten
from dispatcher.lease import RENEW_S, Borrower, Claim, Lease, Lender, outlived_s
from dispatcher.quota import Quota, whole

#: A lender that takes longer to answer is asked again.
ANSWER_S: Final = 1.0
#: Between two claims, however much there is to ask for.
HURRY_S: Final = 0.02

_log = logging.getLogger(__name__)
_encoder: Final = msgspec.msgpack.Encoder()
_claim_decoder: Final = msgspec.msgpack.Decoder(Claim)
_lease_decoder: Final = msgspec.msgpack.Decoder(Lease)


class Permit:
    """One request's messages of a quota (see `channels.transport.Watch`). `close` it when the request has ended."""

    __slots__ = ("_begun", "_clock_s", "_n", "_open", "_quota", "_term", "_who")

    def __init__(self, quota: Quota, n: int, clock_s: Callable[[], float], who: str) -> None:
        self._quota = quota
        self._n = n
        self._term = quota.term
        self._clock_s = clock_s
        self._who = who
        self._begun = False
        self._open = True

    def begin(self) -> None:
        """The request is about to be written. Raises NotWritten when its lease has run out since."""
        now_s = self._clock_s()
        if self._quota.term != self._term or not self._quota.valid(now_s):
            raise NotWritten("its share of the rate quota ran out")
        if not self._open:  # once more, with another token say: that counts as well
            granted = self._quota.grant(self._n, now_s)
            if granted < self._n:
                self._quota.undo(granted)
                raise NotWritten("the rate quota does not let it go a second time")
            self._open = True
        self._begun = True

    def written(self) -> None:
        """All of it surely is."""
        if self._open:
            self._open = False
            now_s = self._clock_s()
            self._quota.wrote(self._n, now_s)
            _log.debug("%s wrote %d by %.6f", self._who, self._n, now_s)

    def close(self) -> None:
        """The request ended: what was begun counts as written by now at the latest."""
        if self._begun:
            self.written()
        elif self._open:
            self._open = False
            self._quota.undo(self._n)


class Allowance:
    """`quota` is None while the provider has no rate. `changed` is called when there may be more to grant."""

    def __init__(self, who: str, number: int, lender: Call | None, clock_s: Callable[[], float]) -> None:
        self.quota: Quota | None = None
        self.first = False  # no sender of this name was ever there before, so nothing is lent
        self.changed: Callable[[], None] = lambda: None
        self._who = who
        self._number = number
        self._call = lender
        self._clock_s = clock_s
        self._born_s = clock_s()
        self._borrower = Borrower(secrets.randbits(63))
        self._lender: Lender | None = None
        self._senders = 1
        self._uncounted = False  # there was no rate for a time
        self._short = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def configure(self, rate_per_s: float | None, senders: int) -> None:
        """The provider's rate, over so many senders."""
        now_s = self._clock_s()
        self._senders = senders
        if rate_per_s is None:
            if self.quota is not None:
                self.quota.lease(0, -inf, now_s)
            self.quota, self._uncounted = None, True
            return
        if self.quota is None:
            self.quota = Quota(rate_per_s, now_s if self._uncounted else self._born_s)
        else:
            self.quota.configure(rate_per_s, now_s)
        if self._number == 0:
            self._open_lender(*whole(rate_per_s))
        if not self._take_all():
            self._claim_own(self.quota)  # before anybody else is lent what this sender may hold
            if self._task is None:
                self._task = asyncio.get_running_loop().create_task(self._renew())

    async def stop(self) -> None:
        """Ask no more; what is held runs out by itself."""
        task, self._task = self._task, None
        if task is not None:
            await end(task)

    def permit(self, n: int) -> Permit | None:
        """For a request of so many granted messages."""
        if self.quota is None or n == 0:
            return None
        return Permit(self.quota, n, self._clock_s, self._who)

    def ran_short(self) -> None:
        """A message was refused for want of quota."""
        if self._task is not None and self.quota is not None and self._borrower.ran_short(self.quota):
            self._short.set()

    def lend(self, claim: bytes) -> bytes:
        """A `Claim` of another sender in, a `Lease` out. One that has nothing to lend lends nothing."""
        asked = _claim_decoder.decode(claim)
        if self._lender is None or self.quota is None or self.quota.until_s == inf:
            return _encoder.encode(Lease(asked.turn, 0))  # as yet it knows of no others, or of no rate
        return _encoder.encode(self._lender.lend(asked, self._clock_s()))

    def _open_lender(self, total: int, period_s: float) -> None:
        if self._lender is None:
            known = self.first or self._senders == 1
            settled_s = -inf if known else self._born_s + outlived_s(period_s)
            self._lender = Lender(total, period_s, settled_s, self._senders)
        else:
            self._lender.configure(total, period_s, self._senders)

    def _take_all(self) -> bool:
        """The only sender needs no lease."""
        now_s = self._clock_s()
        if self._lender is None or self.quota is None or self._senders > 1:
            return False
        if not self._lender.alone(self._borrower.life, now_s):
            return False
        self.quota.lease(self.quota.total, inf, now_s)
        return True

    async def _renew(self) -> None:
        """Claims for as long as there is a quota to share."""
        while self.quota is not None and not self._take_all():
            self._short.clear()
            if not self._claim_own(self.quota):
                await self._claim(self.quota)
            await asyncio.sleep(HURRY_S)
            try:
                async with asyncio.timeout(RENEW_S - HURRY_S):
                    await self._short.wait()
            except TimeoutError:
                continue
        self._task = None
        self.changed()

    def _claim_own(self, quota: Quota) -> bool:
        """The lender's own claim needs no call. False: somebody else lends."""
        if self._lender is None:
            return False
        now_s = self._clock_s()
        self._take(self._lender.lend(self._borrower.claim(quota, now_s), now_s), quota)
        return True

    async def _claim(self, quota: Quota) -> None:
        """A lender that does not answer lends nothing new; what is held lasts until it runs out."""
        if self._call is None:
            return
        claim = self._borrower.claim(quota, self._clock_s())
        try:
            async with asyncio.timeout(ANSWER_S):
                lease = _lease_decoder.decode(await self._call(_encoder.encode(claim)))
        except (PeerGone, TimeoutError):
            return
        except Exception:
            _log.exception("%s: its claim ended in a bug", self._who)
            return
        self._take(lease, quota)

    def _take(self, lease: Lease, quota: Quota) -> None:
        before = quota.share
        if self._borrower.take(lease, quota, self._clock_s()) and quota.share > before:
            self.changed()
