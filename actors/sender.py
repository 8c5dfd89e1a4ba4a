"""The sender: one member of a provider's pool. Holds its connections behind a limit and the provider's rate quota.

It refuses what it has no room for; what it took waits at most for one of its own requests to end, or for the quota of
the next `QUOTA_AHEAD_S`.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from math import inf
from typing import Final

import msgspec
from msgspec import Struct

from actors.allowance import Allowance, Permit
from actors.attempts import Attempts, Slot, Waiting
from actors.follower import Follower
from actors.journal import Entry, Journal, in_memory
from actors.link import Build, Link
from actors.polling import Polling
from actors.ports import Call
from actors.stock import Stock
from actors.tally import Tally
from actors.tokens import Tokens
from channels import OptionsError
from channels.courier import Inbox
from dispatcher.adaptive import Adaptive
from dispatcher.calls import Load, RecallAnswer, RecallCall, SendAnswer
from dispatcher.catalog import Catalog
from dispatcher.documents import Provider
from dispatcher.lease import RENEW_S
from dispatcher.limit import AHEAD_S, LANE_SHARES, Fixed, Gate, Sample, carried, most
from dispatcher.message import Message
from dispatcher.receipt import Answer, Receipt
from dispatcher.vitals import Pulse
from dispatcher.window import LEAST

#: A throttled provider that names no time is left alone for so long; one that does, for no longer than the other.
HOLD_S: Final = 0.25
LONGEST_HOLD_S: Final = 60.0
LATENCY_WEIGHT: Final = 0.05
#: Messages that the quota will let go within it are taken, so that the next ones are here when it does. Of one call
#: half of them: it is answered when its last message has gone, and only then are the next ones on their way. But a
#: smallest call is not parted, since its other half would wait for the first.
QUOTA_AHEAD_S: Final = 0.5
#: One that has taken so many is asked again after this.
QUOTA_FULL_S: Final = 0.01

_log = logging.getLogger(__name__)
_encoder: Final = msgspec.msgpack.Encoder()
_recall_decoder: Final = msgspec.msgpack.Decoder(RecallCall)
_version_decoder: Final = msgspec.msgpack.Decoder(int)


class OpenSendCall(Struct, array_like=True):
    """A `SendCall` from the sender's side, which opens the messages."""

    lane: int
    attempts: list[int]
    messages: list[Message]


_Request = tuple[Link, Sample, list[Slot], Permit | None]
_send_decoder: Final = msgspec.msgpack.Decoder(OpenSendCall)


class Sender:
    """Takes batches, sends them in requests of up to `max_batch`, answers with receipts and its load."""

    def __init__(
        self,
        provider_id: str,
        number: int,
        catalog: Catalog,
        follower: Follower,
        build: Build,
        clock_ms: Callable[[], int],
        clock_s: Callable[[], float],
        tally: Tally,
        lender: Call | None = None,
        token: Call | None = None,
        inbox: Inbox | None = None,
    ) -> None:
        self.provider_id = provider_id
        self.number = number
        self.catalog = catalog
        self.tally = tally
        self._follower = follower
        self._build = build
        self._clock_ms = clock_ms
        self._clock_s = clock_s
        self._attempts = Attempts()
        self._stock = Stock(self._attempts)
        self._journal = in_memory(clock_ms())
        self._gate = Gate(Fixed(0))
        self._latency_s = AHEAD_S  # of requests, smoothed
        self._pulse = Pulse(clock_s())
        self._max_batch = 1
        self._allowance = Allowance(f"sender {provider_id}:{number}", number, lender, clock_s)
        self._allowance.changed = self._on_allowance
        self._inbox = inbox  # where what a courier hears goes, and what is asked for
        self._polling = Polling(provider_id, inbox, self._stock, self._allowance, clock_ms, clock_s)
        self._tokens = Tokens(token if number else None, lambda: clock_ms() / 1000)
        self._provider: Provider | None = None
        self._link: Link | None = None
        self._fault = ""  # why the provider's document cannot be built
        self._unusable = False  # that, and there was none before
        self._hold_until_s = 0.0
        self._draining = False
        self._scheduled = False
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        catalog.on_change.append(self._on_catalog)
        tally.gauge("dispatcher_sender_in_flight", lambda: {(provider_id,): self._gate.in_flight})
        tally.gauge("dispatcher_polled_addresses", lambda: {(provider_id,): self._polling.waiting})

    # -- running

    def use(self, journal: Journal, known: Sequence[Entry], first: bool = False) -> None:
        """Before `start`: write this journal. `known` is what a predecessor wrote, which counts as if this one had;
        `first`: there never was one."""
        self._allowance.first = first
        self._journal.close()
        self._journal = journal
        for id_, attempt, answer in known:
            if answer is None:  # it may have arrived
                receipt = Receipt(id_, "unknown", self.provider_id, code="sender_gone")
            else:
                receipt = Receipt(id_, answer, self.provider_id)
            self._attempts.remember(id_, attempt, receipt)

    async def start(self) -> None:
        """Follow the catalog; the provider's document opens the way to it."""
        await self._follower.start()
        self._configure(self.catalog.providers.get(self.provider_id))

    async def await_catalog(self, version: bytes) -> bytes:
        """Returns once this catalog version is in use."""
        await self._follower.reached(_version_decoder.decode(version))
        return b""

    async def drain(self, _: bytes = b"") -> bytes:
        """Take nothing more, give back what is in no request, wait for the requests in the air, close."""
        self._draining = True
        await self._allowance.stop()
        self._stock.give_back()
        await self._polling.stop()
        self._retire()
        while self._tasks:
            await asyncio.wait(self._tasks)
        if self._timer is not None:
            self._timer.cancel()
        await self._follower.stop()
        self._journal.close()
        return b""

    def _on_catalog(self, kind: str) -> None:
        if kind in ("providers", "*"):
            self._configure(self.catalog.providers.get(self.provider_id))

    def _configure(self, provider: Provider | None) -> None:
        """Requests in the air end on the old way; a document that cannot be built keeps the old one."""
        if provider == self._provider or self._draining:
            return
        link: Link | None = None
        if provider is not None and provider.enabled:
            try:
                way = self._build(self.provider_id, provider)
                if self._inbox is not None and not isinstance(way, tuple):
                    way.listen(self._inbox)
                link = Link(self.provider_id, way, provider.timeout_s, self._tokens)
            except Exception as error:
                self._tell_of_fault(error)
                self._unusable = self._link is None
                return
        self._provider = provider
        self._fault = ""
        self._unusable = False
        if self._pulse.tripped:  # what failed was done by the old document
            self._pulse = Pulse(self._clock_s())
        self._retire()
        self._link = link
        self._polling.use(link)
        if provider is None or link is None:
            self._stock.give_back()
            return
        self._gate.limit = Adaptive(provider.concurrency)
        self._max_batch = provider.max_batch
        self._allowance.configure(provider.rate_per_s, provider.senders)
        self._schedule()

    def _tell_of_fault(self, error: Exception) -> None:
        """Once: every change of the catalog tries again, since a file that was missing may be there."""
        if self._fault != str(error):
            bug = not isinstance(error, OptionsError)
            _log.error("sender %s: the provider cannot be used: %s", self.provider_id, error, exc_info=bug)
        self._fault = str(error)

    def _retire(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            self._spawn(link.retire())

    def _on_allowance(self) -> None:
        if self._stock.waiting:
            self._schedule()

    # -- calls

    async def lend(self, claim: bytes) -> bytes:
        """Another sender of the pool asks for its share of the quota: a `Claim` in, a `Lease` out."""
        return self._allowance.lend(claim)

    async def token(self, stale: bytes) -> bytes:
        """Another sender of the pool asks for the access token: see `Tokens.lend`."""
        return await self._tokens.lend(stale)

    async def send(self, batch: bytes) -> bytes:
        """A `SendCall` in, a `SendAnswer` out once every message has its receipt. No messages: only the load."""
        call = _send_decoder.decode(batch)
        waiting = Waiting(len(call.messages), asyncio.get_running_loop().create_future())
        self._admit(call, waiting)
        if waiting.missing:
            await waiting.done
        seconds = waiting.seconds / waiting.sent if waiting.sent else 0.0
        receipts = [r for r in waiting.receipts if r is not None]
        return _encoder.encode(SendAnswer(receipts, self.load(call.lane, seconds)))

    async def recall(self, batch: bytes) -> bytes:
        """What became of these messages; attempts up to the given ones, if not sent yet, never will be from here.
        Complete where this sender's journal is old enough to know of all that a predecessor wrote."""
        call = _recall_decoder.decode(batch)
        waiting = Waiting(len(call.ids), asyncio.get_running_loop().create_future())
        known = [self._attempts.recall(id_, attempt) for id_, attempt in zip(call.ids, call.attempts, strict=True)]
        for place, slot in enumerate(known):
            if slot is None:
                waiting.put(place, None)
            else:
                slot.tell(waiting, place)
        if waiting.missing:
            patience_s = 2 * self._provider.timeout_s if self._provider is not None else 5.0
            await asyncio.wait([waiting.done], timeout=patience_s)
        pairs = zip(call.ids, known, waiting.receipts, strict=True)
        receipts = [self._recalled(id_, slot, receipt) for id_, slot, receipt in pairs]
        return _encoder.encode(RecallAnswer(receipts, self._journal.covers(call.ids)))

    def _recalled(self, id_: str, slot: Slot | None, receipt: Receipt | None) -> Receipt | None:
        if receipt is None and slot is not None:  # still in the air: it may arrive or not
            return Receipt(id_, "unknown", self.provider_id, code="in_flight")
        if receipt is not None and receipt.answer == "refused":  # taken back and never sent
            return None
        return receipt

    def load(self, lane: int, seconds: float = 0.0) -> Load:
        """How this sender is doing, for messages of this lane."""
        now_s = self._clock_s()
        room = self._intake(lane, now_s)
        wait_s = max(self._hold_until_s - now_s, 0.0)
        quota = self._allowance.quota
        if room == 0 and wait_s == 0 and quota is not None:
            free_s = quota.wait_s(now_s, lane)
            wait_s = RENEW_S if free_s == inf else max(free_s, QUOTA_FULL_S)
        limit = self._gate.limit.value if self._link is not None else 0
        in_flight = self._gate.in_flight
        vitals = self._pulse.vitals(now_s)
        return Load(self.provider_id, in_flight, limit, room, seconds, wait_s, self._draining, self._unusable, vitals)

    # -- taking messages in

    def _room(self, lane: int, now_s: float) -> int:
        """Messages of this lane it would take now: what its requests can carry, within the quota."""
        if self._link is None or self._draining or now_s < self._hold_until_s:
            return 0
        share = LANE_SHARES[lane]
        room = most(carried(self._gate.limit.value * self._max_batch, self._latency_s), share) - self._stock.in_hand
        quota = self._allowance.quota
        if quota is not None and room > 0:
            room = min(room, quota.within(QUOTA_AHEAD_S, now_s, lane) - self._stock.before(lane))
        return max(room, 0)

    def _intake(self, lane: int, now_s: float) -> int:
        """How many of them from one call: what can go at once, and half of what the quota lets go later."""
        room, quota = self._room(lane, now_s), self._allowance.quota
        if quota is None or room == 0:
            return room
        at_once = quota.left(now_s, lane)
        later = quota.within(QUOTA_AHEAD_S, now_s, lane) - at_once
        return min(room, max(at_once + (later + 1) // 2, LEAST))

    def _admit(self, call: OpenSendCall, waiting: Waiting) -> None:
        """Take what there is room for; nothing awaits in here."""
        lane = call.lane
        room = self._intake(lane, self._clock_s())
        known, put = self._attempts.get, self._stock.put
        full: tuple[Answer, str, str | None] = ("refused", "", None)
        if self._unusable:
            full = ("auth", self.provider_id, "configuration")
        taken, refused = 0, False
        for place, (message, attempt) in enumerate(zip(call.messages, call.attempts, strict=True)):
            id_ = message.id
            slot = known(id_)
            if slot is not None and attempt <= max(slot.attempt, slot.fence):
                if attempt == slot.attempt:
                    slot.tell(waiting, place)
                else:  # recalled, or a late copy of an attempt that is over
                    waiting.put(place, Receipt(id_, "refused"))
            elif taken == room:
                refused = True
                waiting.put(place, Receipt(id_, full[0], full[1], code=full[2]))
            else:
                taken += 1
                put(lane, message, attempt, waiting, place)
        if taken:
            self._schedule()
        if refused:
            self._allowance.ran_short()

    # -- requests

    def _schedule(self) -> None:
        """Dispatch once every call of this turn of the loop has brought its messages."""
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._dispatch)

    def _dispatch(self) -> None:
        """Put ready messages into requests while there are connections and quota."""
        self._scheduled = False
        while (request := self._next()) is not None:
            self._spawn(self._work(*request))

    def _next(self) -> _Request | None:
        """The next request, urgent messages first. None: there is nothing to send, or no room, and whatever changes
        that asks again."""
        if self._link is None or not self._stock.waiting:
            return None
        now_s = self._clock_s()
        for lane, ready in enumerate(self._stock.lanes):
            while ready:
                sample = self._gate.enter(now_s, LANE_SHARES[lane])
                if sample is None:
                    return None  # lanes after this one may take even less
                slots, permit = self._pick(lane, now_s, self._clock_ms())
                if slots:
                    return self._link, sample, slots, permit
                sample.ignored()
                if ready:
                    self._wait_for_quota(lane, now_s)
                    return None
        return None

    def _pick(self, lane: int, now_s: float, now_ms: int) -> tuple[list[Slot], Permit | None]:
        """One request's messages: not expired, within the quota."""
        quota = self._allowance.quota
        if quota is None:
            return self._stock.pick(lane, self._max_batch, now_ms), None
        slots = self._stock.pick(lane, min(self._max_batch, quota.left(now_s, lane)), now_ms)
        return slots, self._allowance.permit(quota.grant(len(slots), now_s, lane))

    def _wait_for_quota(self, lane: int, now_s: float) -> None:
        """Messages wait for the quota, but not for a share of it that may never come."""
        quota = self._allowance.quota
        wait_s = quota.wait_s(now_s, lane) if quota is not None else 0.0
        if wait_s < inf:
            self._wake_in(wait_s)
        else:
            self._stock.give_back()

    def _wake_in(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(min(seconds, 1.0) + 0.001, self._dispatch)

    async def _work(self, link: Link, sample: Sample, slots: list[Slot], permit: Permit | None) -> None:
        """A request, and whatever there is to send when it has ended: a task each would cost as much as a fifth of the
        sending."""
        request: _Request | None = (link, sample, slots, permit)
        while request is not None:
            await self._request(*request)
            request = self._next()

    async def _request(self, link: Link, sample: Sample, slots: list[Slot], permit: Permit | None) -> None:
        messages = [slot.message for slot in slots if slot.message is not None]
        receipts: list[Receipt] | None = None
        pulse = self._pulse
        pulse.began(sample.start_s)
        written = self._journal.write(slots)
        try:
            receipts = await link.exchange(messages, self._clock_ms, permit)
        finally:
            if permit is not None:
                permit.close()
            if receipts is None:
                receipts = link.all(messages, "unknown", "cancelled")
            self._journal.end(written, receipts)
            if link.polled is not None:
                self._polling.sent(link, messages, receipts)
            now_s = self._clock_s()
            self._end_sample(sample, receipts, now_s)
            cells = [(message.region, message.type) for message in messages]
            pulse.ended(now_s - sample.start_s, [r.answer for r in receipts], now_s, receipts[0].code, cells)
            self._stock.end(slots, receipts, now_s - sample.start_s)

    def _end_sample(self, sample: Sample, receipts: list[Receipt], now_s: float) -> None:
        """The request as the limit learns from it. One that was throttled whole silences the sender for a while, unless
        by limits of the messages' own."""
        took_s = now_s - sample.start_s
        limit = self._gate.limit.value
        self._latency_s += LATENCY_WEIGHT * (took_s - self._latency_s)
        self.tally.observe("dispatcher_send_seconds", self.provider_id, took_s)
        first = receipts[0]
        if first.answer == "throttled" and all(r.answer == "throttled" and not r.narrow for r in receipts):
            named_s = first.retry_after_s if first.retry_after_s is not None else HOLD_S
            self._hold_until_s = max(self._hold_until_s, now_s + min(named_s, LONGEST_HOLD_S))
            self._stock.give_back()
            sample.dropped(now_s)
        elif first.answer == "unknown":
            sample.dropped(now_s)
        elif first.answer == "transient":
            sample.ignored()
        else:
            sample.success(now_s)
        if self._gate.limit.value > limit and self._stock.waiting:
            self._schedule()  # the request that follows this one leaves room for another

    def _spawn(self, work: "asyncio._CoroutineLike[None]") -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
