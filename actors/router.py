"""The router: picks a provider and one of its senders for every message of a batch. Keeps nothing that must survive.

Messages stay as they were encoded. The policy is in `dispatcher.routing` and `dispatcher.health`.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from random import Random
from typing import Final

import msgspec

from actors.follower import Follower
from actors.job import Job, Lot
from actors.pool import Pool, Seat, ask
from actors.ports import PeerGone, SenderPeer
from actors.tally import Tally
from dispatcher.calls import RecallAnswer, RouteAnswer, RouteCall, SendAnswer, SendCall
from dispatcher.catalog import Catalog
from dispatcher.health import Health
from dispatcher.kinds import URGENT
from dispatcher.receipt import Receipt
from dispatcher.routing import RouteTable, split

#: Urgent messages probe a sick provider only where no others have for so many times the usual pause.
URGENT_PATIENCE: Final = 5.0
ROUNDS: Final = 2  # a refused part is tried once more, at another sender or provider
#: What says most about a message when several senders know it; the answers after these say it was not taken.
_TELLING: Final = ("accepted", "unknown", "rejected", "invalid_recipient")
_BAD: Final = frozenset({"transient", "unknown"})

_log = logging.getLogger(__name__)
_encoder: Final = msgspec.msgpack.Encoder()
_route_decoder: Final = msgspec.msgpack.Decoder(RouteCall)
_send_decoder: Final = msgspec.msgpack.Decoder(SendAnswer)
_recall_decoder: Final = msgspec.msgpack.Decoder(RecallAnswer)
_version_decoder: Final = msgspec.msgpack.Decoder(int)
_EMPTY_CALL: Final = _encoder.encode(SendCall(URGENT, [], []))


class Router:
    """Interchangeable with every other router."""

    def __init__(
        self,
        catalog: Catalog,
        follower: Follower,
        senders: Callable[[str], Sequence[SenderPeer]],
        clock_s: Callable[[], float],
        rng: Random,
        tally: Tally,
    ) -> None:
        self.catalog = catalog
        self.tally = tally
        self._follower = follower
        self._senders = senders
        self._clock_s = clock_s
        self._rng = rng
        self._health = Health()
        self._table = RouteTable(catalog.routes, catalog.providers)
        self._pools: dict[str, Pool] = {}
        self._pings: set[asyncio.Task[None]] = set()
        catalog.on_change.append(self._on_catalog)
        tally.gauge("dispatcher_provider_share", self._share_gauge)

    # -- running

    async def start(self) -> None:
        """Follow the catalog and look for the senders."""
        await self._follower.start()
        self._look_for_senders()

    async def stop(self) -> None:
        """Ask after nobody any more. Calls in hand end by themselves."""
        for ping in self._pings:
            ping.cancel()
        await asyncio.gather(*self._pings, return_exceptions=True)
        await self._follower.stop()

    async def await_catalog(self, version: bytes) -> bytes:
        """Returns once messages are routed by this catalog version or a later one."""
        await self._follower.reached(_version_decoder.decode(version))
        return b""

    def _on_catalog(self, kind: str) -> None:
        if kind in ("providers", "routes", "*"):
            providers = self.catalog.providers
            self._table = RouteTable(self.catalog.routes, providers)
            self._pools = {id_: pool for id_, pool in self._pools.items() if id_ in providers}
            self._health.keep(set(providers))
            self._look_for_senders()

    def _look_for_senders(self) -> None:
        now_s = self._clock_s()
        for id_ in self.catalog.providers:
            self._pool(id_, now_s)

    # -- route

    async def route(self, batch: bytes) -> bytes:
        """A `RouteCall` in, a `RouteAnswer` out: one receipt a message, in order."""
        job = Job(_route_decoder.decode(batch), self._table)
        lots = job.lots
        for number in range(ROUNDS):
            parts = self._assign(job, lots, number)
            if len(parts) == 1:
                [(provider, (seat, places))] = parts.items()
                await self._deliver(job, provider, seat, places)
            elif parts:
                work = (self._deliver(job, provider, seat, places) for provider, (seat, places) in parts.items())
                await asyncio.gather(*work)
            lots = job.unanswered()
            if not lots:
                break
        job.answer([place for lot in lots for place in lot.places], "refused", "full")
        return _encoder.encode(RouteAnswer([r for r in job.receipts if r is not None]))

    def _assign(self, job: Job, lots: list[Lot], number: int) -> dict[str, tuple[Seat, list[int]]]:
        """Who is handed what; what nobody can take is answered here. Nothing awaits in here."""
        now_s = self._clock_s()
        parts: dict[str, tuple[Seat, list[int]]] = {}
        for lot in lots:
            at = 0
            for provider, n in self._split(job, lot, number, now_s):
                part = parts.get(provider)
                if part is None:
                    seat = self._pools[provider].pick(job.lane, now_s, self._rng, job.refused_by.get(provider))
                    if seat is None:
                        continue  # it was there a moment ago: `_split` asked
                    part = parts[provider] = (seat, [])
                part[1].extend(lot.places[at : at + n])
                at += n
            if at < len(lot.places) and number == 0:
                self._strand(job, lot, lot.places[at:], now_s)
        for seat, places in parts.values():
            seat.hand(len(places))
        return parts

    def _split(self, job: Job, lot: Lot, number: int, now_s: float) -> list[tuple[str, int]]:
        open_ = {c.provider: self._open_to(c.provider, job, now_s) for c in lot.choice.candidates}

        def health(id_: str) -> float:
            return self._share(id_, now_s) if open_[id_] else 0.0

        parts = split(len(lot.places), lot.choice, health, lot.tried, self._rng)
        if number > 0:
            return parts
        probed = self._probed(job.lane, lot, open_, now_s)
        if probed is None:
            return parts
        if not parts:
            return [(probed, 1)]
        first, most = parts[0]
        rest = [(first, most - 1), *parts[1:]] if most > 1 else parts[1:]
        return [(probed, 1), *rest]

    def _probed(self, lane: int, lot: Lot, open_: dict[str, bool], now_s: float) -> str | None:
        """A provider that is out and should be tried with one of these messages."""
        patience = URGENT_PATIENCE if lane == URGENT and len(open_) > 1 else 1.0
        for id_, is_open in open_.items():
            if is_open and id_ not in lot.tried and self._health.probe(id_, now_s, patience):
                return id_
        return None

    def _open_to(self, provider: str, job: Job, now_s: float) -> bool:
        """Whether a sender of this provider may be handed messages of this job now."""
        pool = self._pool(provider, now_s)
        but = job.refused_by.get(provider)
        return any(seat is not but and seat.takes(job.lane, now_s) for seat in pool.seats)

    def _strand(self, job: Job, lot: Lot, places: list[int], now_s: float) -> None:
        """Full senders are asked again soon; where nobody is left to ask, the message waits its backoff."""
        listed = [c.provider for c in lot.choice.candidates]
        well = [id_ for id_ in listed if self._health.out(id_) is None and self._pool(id_, now_s).hopeful]
        if well:
            job.answer(places, "refused", "full")
        elif not listed:
            job.answer(places, "transient", "no_provider")
        else:
            job.answer(places, "transient", "provider_out")

    # -- one part

    async def _deliver(self, job: Job, provider: str, seat: Seat, places: list[int]) -> None:
        """Hand a part to a sender and take its receipts. From here on these messages may have been sent."""
        messages, attempts = job.messages, job.attempts
        call = SendCall(job.lane, [attempts[place] for place in places], [messages[place] for place in places])
        pool = self._pools.get(provider) or Pool()  # the catalog may have dropped it since
        out = pool.begin(self._clock_s())
        try:
            answer = _send_decoder.decode(await seat.peer.send(_encoder.encode(call)))
            if len(answer.receipts) != len(places):
                raise ValueError(f"{len(answer.receipts)} receipts for {len(places)} messages")
        except PeerGone:
            seat.lost(self._clock_s())
            job.answer(places, "unknown", "sender_gone", provider)
        except Exception:
            _log.exception("router: a call to a sender of %s ended in a bug", provider)
            job.answer(places, "unknown", "router_error", provider)
        else:
            self._take_in(job, provider, seat, places, answer)
        finally:
            pool.end(out)

    def _take_in(self, job: Job, provider: str, seat: Seat, places: list[int], answer: SendAnswer) -> None:
        receipts = job.receipts
        good = bad = refused = 0
        for place, receipt in zip(places, answer.receipts, strict=True):
            said = receipt.answer
            if said == "refused":
                refused += 1
                continue
            receipts[place] = receipt
            if said in _BAD:
                bad += bool(receipt.provider)
            elif said == "auth":
                self._health.refused_us(provider, receipt.code, self._clock_s())
            elif said != "throttled":
                good += 1
        if refused:
            job.refused_by[provider] = seat
        now_s = self._clock_s()
        seat.report(job.lane, answer.load, refused > 0, now_s)
        self._health.answered(provider, good, bad, now_s)
        if answer.load.seconds > 0:
            self._health.took(provider, answer.load.seconds, now_s)
        pool = self._pools.get(provider)
        if pool is not None:
            self._health.loaded(provider, *pool.busy(), now_s)

    # -- senders

    def _pool(self, provider: str, now_s: float) -> Pool:
        pool = self._pools.get(provider)
        if pool is None:
            pool = self._pools[provider] = Pool()
        pool.refresh(self._senders(provider))
        for seat in pool.missing(now_s):
            seat.ping = asyncio.get_running_loop().create_task(self._ask(seat))
            self._pings.add(seat.ping)
            seat.ping.add_done_callback(self._pings.discard)
        return pool

    async def _ask(self, seat: Seat) -> None:
        try:
            if await ask(seat, _EMPTY_CALL):
                seat.gone = False
            else:
                seat.lost(self._clock_s())
        finally:
            seat.ping = None

    # -- recall and view

    async def recall(self, batch: bytes) -> bytes:
        """What the senders know of these messages. A sender that is gone knows nothing, and sends nothing more."""
        peers = [peer for provider in self.catalog.providers for peer in self._senders(provider)]
        answers = await asyncio.gather(*(_recall(peer, batch) for peer in peers))
        known: list[Receipt | None] = [None] * len(msgspec.msgpack.decode(batch)[0])
        for receipts in answers:
            known = [_telling(one, other) for one, other in zip(known, receipts or known, strict=True)]
        return _encoder.encode(RecallAnswer(known, complete=all(answer is not None for answer in answers)))

    async def health(self, _: bytes = b"") -> bytes:
        """Provider id -> `ProviderHealth`, as this router sees it."""
        now_s = self._clock_s()
        shares = self._shares(now_s)
        view = {
            id_: self._health.view(id_, now_s, shares.get(id_, 0.0), self._pool(id_, now_s).present)
            for id_ in self.catalog.providers
        }
        return _encoder.encode(view)

    def _shares(self, now_s: float) -> dict[str, float]:
        return self._table.shares(lambda id_: self._share(id_, now_s))

    def _share(self, provider: str, now_s: float) -> float:
        pool = self._pools.get(provider)
        return self._health.share(provider, now_s, pool.waited_s(now_s) if pool is not None else 0.0)

    def _share_gauge(self) -> dict[tuple[str, ...], float]:
        return {(id_,): share for id_, share in self._shares(self._clock_s()).items()}


async def _recall(peer: SenderPeer, batch: bytes) -> list[Receipt | None] | None:
    try:
        return _recall_decoder.decode(await peer.recall(batch)).receipts
    except PeerGone:
        return None


def _telling(one: Receipt | None, other: Receipt | None) -> Receipt | None:
    """The receipt that says more."""
    if one is None or other is None:
        return one or other
    for answer in _TELLING:
        if answer in (one.answer, other.answer):
            return one if one.answer == answer else other
    return one
