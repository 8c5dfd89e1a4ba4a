"""How well each provider does, as any router sees it: what its senders say, merged; a share moves only for a reason.

A router adds nothing of its own but silence. So one that has just started knows what the others know as soon as the
senders answered it once, and a sender that died is forgotten with what it said.
"""

from collections import deque
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping
from typing import Final

from msgspec import Struct

from dispatcher.breaker import AUTH_PROBE_S, PROBE_S, Probes
from dispatcher.score import (
    LEAST,
    MIN_REPORTS,
    MIN_TRAFFIC,
    SILENT_S,
    Around,
    Pooled,
    Verdict,
    bound,
    cell_factor,
    explained,
    judge,
    pooled,
)
from dispatcher.vitals import Cell, Vitals

__all__ = ["AUTH_PROBE_S", "LEAST", "PROBE_S", "Change", "Health", "ProviderHealth"]

#: Hysteresis: a score moves when it would change by more than this factor, or when it was above what is held (or below)
#: for `SETTLE_S` on end.
BAND: Final = 1.25
SETTLE_S: Final = 5.0
STEP: Final = 0.05  # less than this is no change worth a move of its own or an entry
LOOK_S: Final = 0.05  # without news a score is looked at so often
CHANGES: Final = 16  # the last ones that are kept for people
HALF_REPORTS: Final = 200  # reports that move the delivery rate half way

Change_ = Callable[[str, str], None]


class Change(Struct, frozen=True):
    """A change of a provider's score, seconds ago. `cause` is one of `dispatcher.score.CAUSES`."""

    ago_s: float
    score: float
    cause: str
    reason: str


class ProviderHealth(Struct, frozen=True):
    """A provider as `GET /v1/providers/{id}` shows it; times in seconds, `score` in (0, 1].

    `usual_s`: the latency when it is well. `refusals`: messages its senders had no room for. `delivery_rate`: null
    without enough reports. `cells`: regions and types that fare worse, as "CN verification", with their share of the
    score. `changes`: the last changes of the score, newest first.
    """

    score: float
    error_rate: float
    latency_s: float
    p50_s: float
    p95_s: float
    in_flight: int
    limit: int
    breaker: str  # closed, open, half_open
    reason: str | None = None
    share: float = 0.0
    senders: int = 0
    throttle_rate: float = 0.0
    usual_s: float = 0.0
    refusals: int = 0
    delivery_rate: float | None = None
    cells: dict[str, float] = {}
    changes: list[Change] = []


class _Word:
    """What one sender said last, and when."""

    __slots__ = ("at_s", "in_flight", "limit", "vitals")

    def __init__(self, vitals: Vitals, in_flight: int, limit: int, at_s: float) -> None:
        self.vitals = vitals
        self.in_flight = in_flight
        self.limit = limit
        self.at_s = at_s


class _Entry(Struct):
    """A change as it is kept."""

    at_s: float
    score: float
    cause: str
    reason: str
    up: bool


class _Known:
    """One provider."""

    __slots__ = (
        "above", "cause", "cells", "changes", "channel", "delivered", "heard_s", "look_s", "out", "pool", "probes",
        "reason", "refusals", "reports", "score", "since_s", "told", "waited_s", "words",
    )  # fmt: skip

    def __init__(self, channel: str) -> None:
        self.channel = channel
        self.words: dict[Hashable, _Word] = {}
        self.pool = Pooled()
        self.score = 1.0
        self.cause, self.reason = "well", ""
        self.told = False  # whether there was a first look
        self.out: str | None = None
        self.probes = Probes()
        self.cells: dict[Cell, float] = {}
        self.above = False  # on which side of the held score the others fell last,
        self.since_s = float("-inf")  # and since when
        self.look_s = float("-inf")  # when to look again
        self.heard_s = float("-inf")
        self.waited_s = 0.0
        self.refusals = 0
        self.reports = 0
        self.delivered = 1.0
        self.changes: deque[_Entry] = deque(maxlen=CHANGES)


class Health:
    """Every provider's health. Those nothing is known of are well. `changed` is told provider and cause of changes."""

    def __init__(self, changed: Change_ | None = None) -> None:
        self._known: dict[str, _Known] = {}
        self._around: dict[str, tuple[float, dict[str, Around]]] = {}  # channel -> until when, provider -> what
        self._changed = changed or (lambda _provider, _cause: None)

    # -- what is heard

    def keep(self, channels: Mapping[str, str]) -> None:
        """These providers are there, each with its channel; everyone else is forgotten."""
        self._known = {
            id_: known for id_, known in self._known.items() if id_ in channels and known.channel in ("", channels[id_])
        }
        for id_, channel in channels.items():
            self._of(id_).channel = channel
        self._around.clear()

    def heard(
        self,
        provider: str,
        sender: Hashable,
        vitals: Vitals,
        now_s: float,
        in_flight: int = 0,
        limit: int = 0,
        refused: int = 0,
    ) -> None:
        """One of its senders said this, and took `refused` messages of a call not."""
        known = self._of(provider)
        known.words[sender] = _Word(vitals, in_flight, limit, now_s)
        known.heard_s = now_s
        known.look_s = now_s
        known.refusals += refused
        if vitals.tripped:
            known.probes.news(vitals.tripped, vitals.streak, now_s - vitals.quiet_s)

    def gone(self, provider: str, sender: Hashable) -> None:
        """This sender died: what it said no longer counts."""
        known = self._known.get(provider)
        if known is not None and known.words.pop(sender, None) is not None:
            known.look_s = float("-inf")

    def only(self, provider: str, senders: Collection[Hashable]) -> None:
        """The provider has these senders and no others."""
        known = self._known.get(provider)
        for sender in [s for s in known.words if s not in senders] if known is not None else ():
            self.gone(provider, sender)

    def reported(self, provider: str, delivered: int, n: int, now_s: float) -> None:
        """Delivery reports came: `n` messages, of which `delivered` arrived."""
        if n <= 0:
            return
        known = self._of(provider)
        keep: float = 0.5 ** (n / HALF_REPORTS)
        rate = delivered / n
        known.delivered = rate if not known.reports else known.delivered * keep + rate * (1 - keep)
        known.reports += n
        known.look_s = now_s

    # -- what it means

    def score(self, provider: str, now_s: float, waited_s: float = 0.0, cell: Cell | None = None) -> float:
        """How much of its weight a provider deserves, in (0, 1], for messages of a region and type. `waited_s`: how
        long its oldest call has been out."""
        known = self._known.get(provider)
        if known is None:
            if waited_s <= SILENT_S:
                return 1.0
            known = self._of(provider)
        self._look(provider, known, now_s, waited_s)
        if cell is None or not known.cells:
            return known.score
        return max(known.score * known.cells.get(cell, 1.0), LEAST)

    def share(self, provider: str, now_s: float, waited_s: float = 0.0, cell: Cell | None = None) -> float:
        """The score, or 0 for a provider that is out: what `split` weighs with."""
        score = self.score(provider, now_s, waited_s, cell)
        return 0.0 if self.out(provider) is not None else score

    def out(self, provider: str) -> str | None:
        """Why the provider is out; None when it is not. As of the last look."""
        known = self._known.get(provider)
        return None if known is None else known.out

    def apart(self, providers: Iterable[str], cell: Cell) -> bool:
        """Whether any of them fares worse with such messages than with others."""
        return any(cell in known.cells for known in map(self._known.get, providers) if known is not None)

    def probe(self, provider: str, now_s: float, patience: float = 1.0) -> bool:
        """Whether a message should try a provider that is out now; True claims this probe. `patience` multiplies the
        time between probes: for messages that should not be the ones to try."""
        known = self._known.get(provider)
        return known is not None and known.out is not None and known.probes.grant(now_s, patience)

    def probed(self, providers: Iterable[str], now_s: float, patience: float = 1.0) -> str | None:
        """The one of these that is out and should be tried with one message, if any. The least bad one comes first; it
        needs no patience where all of them are out."""
        listed = list(providers)
        sick = [id_ for id_ in listed if self.out(id_) is not None]
        if len(sick) == len(listed):
            patience = 1.0
            sick.sort(key=self._badness)
        return next((id_ for id_ in sick if self.probe(id_, now_s, patience)), None)

    def _badness(self, provider: str) -> tuple[bool, float, float]:
        """Trouble with the account is worst, then errors, then latency."""
        known = self._known[provider]
        return bool(known.out and known.out.startswith("auth")), known.pool.error_rate, known.pool.latency_s

    def view(self, provider: str, now_s: float, share: float = 0.0, senders: int = 0) -> ProviderHealth:
        """The provider as people see it."""
        self.score(provider, now_s)
        known = self._known.get(provider) or _Known("")
        pool = known.pool
        why = known.out or (known.reason if known.score < 1.0 else None) or None
        return ProviderHealth(
            score=known.score,
            error_rate=pool.error_rate,
            latency_s=pool.latency_s,
            p50_s=pool.p50_s,
            p95_s=pool.p95_s,
            in_flight=sum(word.in_flight for word in known.words.values()),
            limit=sum(word.limit for word in known.words.values()),
            breaker=_state(known),
            reason=why,
            share=share,
            senders=senders,
            throttle_rate=pool.throttle_rate,
            usual_s=pool.usual_s,
            refusals=known.refusals,
            delivery_rate=_delivery_rate(known),
            cells={f"{region or 'unknown'} {type_}": factor for (region, type_), factor in known.cells.items()},
            changes=[Change(now_s - c.at_s, c.score, c.cause, c.reason) for c in reversed(known.changes)],
        )

    # -- looking

    def _look(self, provider: str, known: _Known, now_s: float, waited_s: float) -> None:
        """Judge anew, where there is news or some time has passed, and move what should move."""
        if now_s < known.look_s and waited_s <= SILENT_S:
            return
        known.look_s = now_s + LOOK_S
        known.pool = pooled([(word.vitals, word.limit, now_s - word.at_s) for word in known.words.values()])
        silent_s = min(waited_s, now_s - known.heard_s) if waited_s > SILENT_S else 0.0
        around = self._around_of(provider, known, now_s)
        rate = _delivery_rate(known)
        verdict = judge(known.pool, around, rate, silent_s)
        self._look_at_breaker(provider, known, verdict, now_s)
        if known.out is None and _moves(known, verdict.score, now_s):
            reason = explained(verdict, known.pool, around, rate, silent_s)
            self._set(provider, known, verdict.score, verdict.cause, reason, now_s)
        known.told = True
        known.cells = _cells(known.pool) if known.pool.cells else {}

    def _look_at_breaker(self, provider: str, known: _Known, verdict: Verdict, now_s: float) -> None:
        why = known.pool.tripped or None
        if why == known.out:
            return
        known.out = why
        if why is None:
            self._set(provider, known, verdict.score, "probe", "probes passed", now_s)
        else:
            auth = why.startswith("auth")
            reason = why if auth else f"error rate {known.pool.error_rate:.2f}, {-known.pool.streak} failed in a row"
            self._set(provider, known, LEAST, "auth" if auth else "errors", reason, now_s)

    def _set(self, provider: str, known: _Known, score: float, cause: str, reason: str, now_s: float) -> None:
        """The score moves. What goes on in the same direction for the same cause is one change."""
        up = score > known.score
        known.score, known.cause, known.reason, known.since_s = score, cause, reason, now_s
        last = known.changes[-1] if known.changes else None
        if last is not None and last.cause == cause and (last.up == up or abs(score - last.score) < STEP):
            last.score, last.reason = score, reason
            return
        known.changes.append(_Entry(now_s, score, cause, reason, up))
        self._changed(provider, cause)

    def _around_of(self, provider: str, known: _Known, now_s: float) -> Around:
        """The others of its channel, as of the last second."""
        until_s, found = self._around.get(known.channel, (float("-inf"), {}))
        if now_s >= until_s or provider not in found:
            found = _all_around({id_: k for id_, k in self._known.items() if k.channel == known.channel})
            self._around[known.channel] = now_s + 2 * LOOK_S, found
        return found[provider]

    def _of(self, provider: str) -> _Known:
        known = self._known.get(provider)
        if known is None:
            known = self._known[provider] = _Known("")
        return known


def _moves(known: _Known, score: float, now_s: float) -> bool:
    """Whether the score leaves the one that is held. At the first look there is nothing yet to hold on to."""
    if score == known.score:
        known.since_s = now_s
        return False
    above = score > known.score
    if above != known.above:
        known.above, known.since_s = above, now_s
    if not known.told or now_s >= known.since_s + SETTLE_S:
        return True
    return abs(score - known.score) >= STEP and not known.score / BAND <= score <= known.score * BAND


def _all_around(peers: Mapping[str, _Known]) -> dict[str, Around]:
    usual = {id_: known.pool.usual_s for id_, known in peers.items() if known.pool.usual_s and known.out is None}
    rates = [known.pool.error_peak for known in peers.values() if known.pool.traffic >= MIN_TRAFFIC]
    best = max((known.delivered for known in peers.values() if known.reports >= MIN_REPORTS), default=0.0)
    error_bound = bound(rates)
    return {
        id_: Around(min((s for other, s in usual.items() if other != id_), default=0.0), best, error_bound)
        for id_ in peers
    }


def _cells(pool: Pooled) -> dict[Cell, float]:
    """The worst any sender says of a cell."""
    cells: dict[Cell, float] = {}
    for cell in pool.cells:
        key = (cell.region, cell.type)
        cells[key] = min(cells.get(key, 1.0), cell_factor(pool, cell))
    return cells


def _delivery_rate(known: _Known) -> float | None:
    return known.delivered if known.reports >= MIN_REPORTS else None


def _state(known: _Known) -> str:
    if known.out is None:
        return "closed"
    return "half_open" if known.probes.half_open else "open"
