"""The router: picks a provider and one of its senders for every message of a batch. Keeps nothing that must survive.

Messages stay as they were encoded. The policy is in `dispatcher.routing` and `dispatcher.health`.
"""

import asyncio
import logging
import secrets
from collections.abc import Callable, Sequence
from itertools import count
from random import Random
from typing import Final

import msgspec

from actors.follower import Follower
from actors.job import Job, Lot
from actors.pool import Pool, Seat, ask
from actors.ports import PeerAbsent, PeerGone, SenderPeer
from actors.tally import Tally
from dispatcher.calls import (
    CandidatesAnswer,
    CandidatesCall,
    Load,
    RecallAnswer,
    RecallCall,
    RouteAnswer,
    RouteCall,
    SendAnswer,
    SendCall,
)
from dispatcher.catalog import Catalog
from dispatcher.explanation import ProviderChance, RouteKey
from dispatcher.health import Health
from dispatcher.kinds import URGENT
from dispatcher.receipt import Receipt
from dispatcher.routing import Choice, RouteTable, shares_of, split
from dispatcher.vitals import Cell

#: Urgent messages probe a sick provider only where no others have for so many times the usual pause.
URGENT_PATIENCE: Final = 5.0
UNUSABLE: Final = "auth: configuration"  # why a provider is out whose own document stands in the way
#: While there was traffic in the last `BUSY_S`, senders that said nothing for `QUIET_S` are asked, so that every router
#: knows of every sender what the others know. Looked at every `TICK_S`.
BUSY_S: Final = 3.0
TICK_S: Final = 0.125
#: What takes so much longer than the first part of a batch is told later, so that it holds up nobody; nobody asks for
#: it any more after `UNASKED_S`.
LATE_S: Final = 0.03
UNASKED_S: Final = 120.0
ROUNDS: Final = 2  # a refused part is tried once more, at another sender or provider
#: What says most about a message when several senders know it; the answers after these say it was not taken.
_TELLING: Final = ("accepted", "unknown", "rejected", "invalid_recipient")

_log = logging.getLogger(__name__)
_encoder: Final = msgspec.msgpack.Encoder()
_route_decoder: Final = msgspec.msgpack.Decoder(RouteCall)
_send_decoder: Final = msgspec.msgpack.Decoder(SendAnswer)
_recall_decoder: Final = msgspec.msgpack.Decoder(RecallAnswer)
_recall_call_decoder: Final = msgspec.msgpack.Decoder(RecallCall)
_candidates_decoder: Final = msgspec.msgpack.Decoder(CandidatesCall)
_version_decoder: Final = msgspec.msgpack.Decoder(int)
_reported_decoder: Final = msgspec.msgpack.Decoder(list[tuple[str, int, int]])
_token_decoder: Final = msgspec.msgpack.Decoder(int)
_LATE: Final = Receipt("", "refused")
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
        self._health = Health(lambda provider, cause: tally.add("dispatcher_provider_changes", (provider, cause)))
        self._table = RouteTable(catalog.routes, catalog.providers)
        self._pools: dict[str, Pool] = {}
        self._pings: set[asyncio.Task[None]] = set()
        self._slow: dict[int, tuple[Job | None, float]] = {}  # jobs with late parts, by token, and since when
        self._tokens = count(secrets.randbits(48))  # a call after a restart must not name another's
        self._busy_until_s = float("-inf")
        self._timer: asyncio.TimerHandle | None = None
        catalog.on_change.append(self._on_catalog)
        tally.gauge("dispatcher_provider_share", self._share_gauge)

    # -- running

    async def start(self) -> None:
        """Follow the catalog and look for the senders."""
        await self._follower.start()
        self._look_for_senders()

    async def stop(self) -> None:
        """Ask after nobody any more. Calls in hand end by themselves."""
        if self._timer is not None:
            self._timer.cancel()
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
            self._look_for_senders()

    def _look_for_senders(self) -> None:
        now_s = self._clock_s()
        self._health.keep({id_: provider.channel for id_, provider in self.catalog.providers.items()})
        for id_ in self.catalog.providers:
            self._pool(id_, now_s)

    # -- route

    async def route(self, batch: bytes) -> bytes:
        """A `RouteCall` in, a `RouteAnswer` out: one receipt a message, in order."""
        self._keep_asking()
        job = Job(_route_decoder.decode(batch), self._table, self._apart)
        lots = job.lots
        for number in range(ROUNDS):
            parts = self._assign(job, lots, number)
            if len(parts) == 1:
                [(seat, (provider, places))] = parts.items()
                await self._deliver(job, provider, seat, places)
            elif parts:
                await self._deliver_all(job, parts)
            lots = job.unanswered()
            if not lots:
                break
        job.answer([place for lot in lots for place in lot.places], "refused", "full")
        if job.late:
            return _encoder.encode(self._part_of(job))
        return _encoder.encode(RouteAnswer([r for r in job.receipts if r is not None], job.doubtful))

    async def late(self, batch: bytes) -> bytes:
        """The rest of a `RouteAnswer` that named this token: one receipt for each of its late places, in order."""
        job, _ = self._slow.pop(_token_decoder.decode(batch), (None, 0.0))
        if job is None:
            return _encoder.encode(RouteAnswer([]))
        await asyncio.wait(job.slow)
        places = sorted(job.late)
        job.answer([place for place in places if job.receipts[place] is None], "refused", "full")
        at = {place: n for n, place in enumerate(places)}
        doubtful = {sender: [at[place] for place in some] for sender, some in job.doubtful.items()}
        return _encoder.encode(RouteAnswer([r for place in places if (r := job.receipts[place])], doubtful))

    def _part_of(self, job: Job) -> RouteAnswer:
        """What is known of a job some of whose messages are late, and a token for these."""
        now_s = self._clock_s()
        while self._slow and next(iter(self._slow.values()))[1] < now_s - UNASKED_S:
            del self._slow[next(iter(self._slow))]  # its shard is gone
        token = next(self._tokens)
        self._slow[token] = job, now_s
        doubtful, job.doubtful = job.doubtful, {}
        return RouteAnswer([r or _LATE for r in job.receipts], doubtful, sorted(job.late), token)

    async def _deliver_all(self, job: Job, parts: dict[Seat, tuple[str, list[int]]]) -> None:
        """Hand out all parts, and wait for those that take about as long as the first one to end."""
        loop = asyncio.get_running_loop()
        begun_s = loop.time()
        tasks = {
            loop.create_task(self._deliver(job, provider, seat, places)): places
            for seat, (provider, places) in parts.items()
        }
        _, slow = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if slow:
            _, slow = await asyncio.wait(slow, timeout=max(LATE_S, loop.time() - begun_s))
        for task in slow:
            job.late.update(tasks[task])
            job.slow.add(task)

    def _apart(self, choice: Choice, cell: Cell) -> Cell | None:
        """The region and type of messages that are not routed like the others of their route; else None."""
        if self._health.apart((candidate.provider for candidate in choice.candidates), cell):
            return cell
        return (cell[0], "") if cell[0] in choice.priced else None

    def _assign(self, job: Job, lots: list[Lot], number: int) -> dict[Seat, tuple[str, list[int]]]:
        """Who is handed what; what nobody can take is answered here. Nothing awaits in here."""
        now_s = self._clock_s()
        picked: dict[str, Seat] = {}
        parts: dict[Seat, tuple[str, list[int]]] = {}
        for lot in lots:
            at = 0
            for provider, n in self._split(job, lot, number, now_s):
                for seat, k in self._seated(job, provider, n, picked, now_s):
                    parts.setdefault(seat, (provider, []))[1].extend(lot.places[at : at + k])
                    seat.hand(k)
                    at += k
            if at < len(lot.places) and number == 0:
                self._strand(job, lot, lot.places[at:], now_s)
        return parts

    def _seated(self, job: Job, provider: str, n: int, picked: dict[str, Seat], now_s: float) -> list[tuple[Seat, int]]:
        """Which of the provider's senders are handed how many. One message may try a sender whose requests fail while
        those of the others do not."""
        pool, but = self._pools[provider], job.refused_by.get(provider)
        seat = picked.get(provider) or pool.pick(job.lane, now_s, self._rng, but)
        if seat is None:
            return []  # it was there a moment ago: `_split` asked
        picked[provider] = seat
        sick = None if seat.tripped else pool.probed(job.lane, now_s)
        if sick is None:
            return pool.spread(n, seat, job.lane, now_s, but)
        return [(sick, 1), *pool.spread(n - 1, seat, job.lane, now_s, but)] if n > 1 else [(sick, 1)]

    def _split(self, job: Job, lot: Lot, number: int, now_s: float) -> list[tuple[str, int]]:
        open_ = {c.provider: self._open_to(c.provider, job, now_s) for c in lot.choice.candidates}

        def health(id_: str) -> float:
            return self._share(id_, now_s, lot.cell) if open_[id_] else 0.0

        region = lot.cell[0] if lot.cell is not None else None
        parts = split(len(lot.places), lot.choice, health, lot.tried, self._rng, region)
        if number > 0:
            return parts
        patience = URGENT_PATIENCE if job.lane == URGENT else 1.0
        eligible = [id_ for id_, is_open in open_.items() if is_open and id_ not in lot.tried]
        probed = self._health.probed(eligible, now_s, patience)
        if probed is None:
            return parts
        if not parts:
            return [(probed, 1)]
        first, most = parts[0]
        rest = [(first, most - 1), *parts[1:]] if most > 1 else parts[1:]
        return [(probed, 1), *rest]

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
        except PeerAbsent:
            self._lost(provider, seat)
            job.refused_by[provider] = seat
        except PeerGone:
            self._lost(provider, seat)
            job.answer(places, "unknown", "sender_gone", provider)
            self._doubt(job, seat, places)
        except Exception:
            _log.exception("router: a call to a sender of %s ended in a bug", provider)
            job.answer(places, "unknown", "router_error", provider)
        else:
            self._take_in(job, provider, seat, places, answer)
        finally:
            pool.end(out)

    def _doubt(self, job: Job, seat: Seat, places: list[int]) -> None:
        """The sender knows more once it is back. Codes that somebody else could take now do not wait for that."""
        now_s, hurried = self._clock_s(), job.hurried()
        for lot in job.lots if hurried else ():
            listed = [candidate.provider for candidate in lot.choice.candidates]
            if not any(self._open_to(id_, job, now_s) and self._health.out(id_) is None for id_ in listed):
                hurried.difference_update(lot.places)
        doubtful = [place for place in places if place not in hurried]
        if doubtful:
            job.doubtful.setdefault(seat.peer.name, []).extend(doubtful)

    def _take_in(self, job: Job, provider: str, seat: Seat, places: list[int], answer: SendAnswer) -> None:
        receipts = job.receipts
        refused = 0
        for place, receipt in zip(places, answer.receipts, strict=True):
            if receipt.answer == "refused":
                refused += 1
            else:
                receipts[place] = receipt
        if refused:
            job.refused_by[provider] = seat
        self._hear(provider, seat, job.lane, answer.load, refused)

    # -- senders

    def _hear(self, provider: str, seat: Seat, lane: int, load: Load, refused: int = 0) -> None:
        """What a sender says of itself and of its provider."""
        now_s = self._clock_s()
        seat.report(lane, load, refused > 0, now_s)
        if load.leaving:
            self._health.gone(provider, seat)
        elif provider in self._pools:  # else the catalog has dropped it since
            vitals = msgspec.structs.replace(load.vitals, tripped=UNUSABLE) if load.unusable else load.vitals
            self._health.heard(provider, seat, vitals, now_s, load.in_flight, load.limit, refused)

    def _lost(self, provider: str, seat: Seat) -> None:
        """It did not answer: what it said of its provider is forgotten."""
        seat.lost(self._clock_s())
        self._health.gone(provider, seat)

    def _keep_asking(self) -> None:
        """There is traffic: for a while senders that are quiet are asked how they do."""
        self._busy_until_s = self._clock_s() + BUSY_S
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(TICK_S, self._tick)

    def _tick(self) -> None:
        now_s = self._clock_s()
        for provider in self.catalog.providers:
            for seat in self._pool(provider, now_s).quiet(now_s):
                self._ping(provider, seat)
        again = now_s < self._busy_until_s
        self._timer = asyncio.get_running_loop().call_later(TICK_S, self._tick) if again else None

    def _pool(self, provider: str, now_s: float) -> Pool:
        pool = self._pools.get(provider)
        if pool is None:
            pool = self._pools[provider] = Pool()
        if pool.refresh(self._senders(provider)):
            self._health.only(provider, pool.seats)
        for seat in pool.missing(now_s):
            self._ping(provider, seat)
        return pool

    def _ping(self, provider: str, seat: Seat) -> None:
        seat.ping = asyncio.get_running_loop().create_task(self._ask(provider, seat))
        self._pings.add(seat.ping)
        seat.ping.add_done_callback(self._pings.discard)

    async def _ask(self, provider: str, seat: Seat) -> None:
        try:
            load = await ask(seat, _EMPTY_CALL)
            if load is None:
                self._lost(provider, seat)
            else:
                self._hear(provider, seat, URGENT, load)
        finally:
            seat.ping = None

    # -- recall and view

    async def recall(self, batch: bytes) -> bytes:
        """What the senders know of these messages, or the one that the call names. A sender that is gone says nothing,
        and sends nothing more."""
        call = _recall_call_decoder.decode(batch)
        peers = [peer for provider in self.catalog.providers for peer in self._senders(provider)]
        if call.sender:
            peers = [peer for peer in peers if peer.name == call.sender]
        answers = await asyncio.gather(*(_recall(peer, batch) for peer in peers))
        known: list[Receipt | None] = [None] * len(call.ids)
        complete = bool(answers) or not call.sender
        for answer in answers:
            known = [_telling(one, other) for one, other in zip(known, answer.receipts or known, strict=True)]
            complete = complete and answer.complete
        return _encoder.encode(RecallAnswer(known, complete))

    async def health(self, _: bytes = b"") -> bytes:
        """Provider id -> `ProviderHealth`, as this router sees it."""
        now_s = self._clock_s()
        shares = self._shares(now_s)
        view = {
            id_: self._health.view(id_, now_s, shares.get(id_, 0.0), self._pool(id_, now_s).present)
            for id_ in self.catalog.providers
        }
        return _encoder.encode(view)

    async def reported(self, batch: bytes) -> bytes:
        """Final delivery reports came: msgpack array of [provider, how many delivered, how many]."""
        now_s = self._clock_s()
        for provider, delivered, n in _reported_decoder.decode(batch):
            if provider in self.catalog.providers:
                self._health.reported(provider, delivered, n, now_s)
        return b""

    async def candidates(self, batch: bytes) -> bytes:
        """Who could carry such messages, as this router sees it: a `CandidatesCall` in, a `CandidatesAnswer` out."""
        now_s = self._clock_s()
        keys = _candidates_decoder.decode(batch).keys
        return _encoder.encode(CandidatesAnswer([self._chances(key, now_s) for key in keys]))

    def _chances(self, key: RouteKey, now_s: float) -> list[ProviderChance]:
        choice = self._table.choice(*key)
        cell = (key[4], key[1])
        shares = shares_of(choice, lambda id_: self._share(id_, now_s, cell), key[4])
        chances = []
        for id_, share in shares.items():
            why = self._health.out(id_) or (None if self._pool(id_, now_s).present else "no_sender")
            score = self._health.score(id_, now_s, cell=cell)
            chances.append(ProviderChance(id_, round(score, 4), round(share, 4), why))
        return chances

    def _shares(self, now_s: float) -> dict[str, float]:
        return self._table.shares(lambda id_: self._share(id_, now_s))

    def _share(self, provider: str, now_s: float, cell: Cell | None = None) -> float:
        pool = self._pools.get(provider)
        return self._health.share(provider, now_s, pool.waited_s(now_s) if pool is not None else 0.0, cell)

    def _share_gauge(self) -> dict[tuple[str, ...], float]:
        return {(id_,): share for id_, share in self._shares(self._clock_s()).items()}


async def _recall(peer: SenderPeer, batch: bytes) -> RecallAnswer:
    try:
        return _recall_decoder.decode(await peer.recall(batch))
    except PeerGone:
        return RecallAnswer([], complete=False)


def _telling(one: Receipt | None, other: Receipt | None) -> Receipt | None:
    """The receipt that says more."""
    if one is None or other is None:
        return one or other
    for answer in _TELLING:
        if answer in (one.answer, other.answer):
            return one if one.answer == answer else other
    return one
