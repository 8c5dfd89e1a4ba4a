"""Which providers may carry a message, and how a batch is divided among them: weight x health, then price."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import accumulate
from random import Random
from typing import Final

from msgspec import Struct

from dispatcher.documents import Match, Provider, Route

_MOST_CACHED: Final = 65_536
#: Candidates whose weight x health is within this part of the best are tied, and of tied ones the cheapest wins.
TIE: Final = 0.1
#: What a dearer one keeps of its share: whoever gets nothing has no health to tell when it is needed.
KEPT_WARM: Final = 0.05
#: channel, type, line, template, region, vendor
Key = tuple[str, str, str, str, str | None, str | None]
#: Kinds that take only tokens of their own vendor.
PUSH_VENDORS: Final = frozenset({"fcm", "apns", "jpush", "huawei_push", "xiaomi", "getui"})


class Candidate(Struct, frozen=True):
    """A provider a route allows, with its configured weight and its price of a message by region."""

    provider: str
    weight: float
    max_batch: int
    price: dict[str, float] = {}


class Choice(Struct, frozen=True):
    """What a route says for one channel; `number` tells choices of one table apart. In `priced` regions there are
    prices to compare."""

    number: int
    candidates: tuple[Candidate, ...]
    pinned: bool = False
    priced: frozenset[str] = frozenset()


class RouteTable:
    """The routes as looked up by message: the first that matches wins, an empty match list means all.

    A route is for the channels of the providers it lists, so a route without `match.channels` that lists SMS providers
    does not hide the e-mail ones. Where no route matches, all enabled providers of the channel share equally.

    A push token of a vendor goes to providers of that kind; where none of them is listed, to those of kinds that are no
    push vendor's, such as a gateway of one's own.
    """

    def __init__(self, routes: Sequence[Route] = (), providers: Mapping[str, Provider] | None = None) -> None:
        self._routes = routes
        self._providers = providers or {}
        self._choices: dict[tuple[int, str, str | None], Choice] = {}  # route (-1: none matched), channel, vendor
        self._cache: dict[Key, Choice] = {}

    def choice(
        self, channel: str, type_: str, line: str, template: str, region: str | None, vendor: str | None = None
    ) -> Choice:
        """Who may carry such a message; no candidates when nobody may."""
        key = (channel, type_, line, template, region, vendor)
        found = self._cache.get(key)
        if found is None:
            if len(self._cache) >= _MOST_CACHED:
                self._cache.clear()
            found = self._cache[key] = self._look_up(key)
        return found

    def shares(self, health: Callable[[str], float]) -> dict[str, float]:
        """The share of its first route's traffic (or of its channel's, when no route lists it) each provider gets."""
        shares: dict[str, float] = {}
        for channel in {provider.channel for provider in self._providers.values()}:
            for number in (*range(len(self._routes)), -1):
                choice = self._choice(number, channel)
                for id_, share in shares_of(choice, health).items():
                    shares.setdefault(id_, share)
        return shares

    def _look_up(self, key: Key) -> Choice:
        channel, vendor = key[0], key[5]
        for number, route in enumerate(self._routes):
            if _matches(route.match, key) and self._serves(route, channel):
                return self._choice(number, channel, vendor)
        return self._choice(-1, channel, vendor)

    def _serves(self, route: Route, channel: str) -> bool:
        listed = (self._providers.get(entry.id) for entry in route.providers)
        return any(provider is not None and provider.channel == channel for provider in listed)

    def _choice(self, number: int, channel: str, vendor: str | None = None) -> Choice:
        found = self._choices.get((number, channel, vendor))
        if found is None:
            route = self._routes[number] if number >= 0 else None
            listed = ((id_, 1.0) for id_ in self._providers)
            weights = listed if route is None else ((entry.id, entry.weight) for entry in route.providers)
            candidates = tuple(self._enabled(weights, channel))
            if vendor is not None:
                own = tuple(c for c in candidates if self._providers[c.provider].kind == vendor)
                candidates = own or tuple(
                    c for c in candidates if self._providers[c.provider].kind not in PUSH_VENDORS
                )
            pinned = route is not None and route.mode == "pinned"
            found = Choice(len(self._choices), candidates, pinned, frozenset() if pinned else _priced(candidates))
            self._choices[number, channel, vendor] = found
        return found

    def _enabled(self, weights: Iterable[tuple[str, float]], channel: str) -> Iterable[Candidate]:
        for id_, weight in weights:
            provider = self._providers.get(id_)
            if provider is not None and provider.enabled and provider.channel == channel and weight > 0:
                yield Candidate(id_, weight, provider.max_batch, provider.price)


def _priced(candidates: Sequence[Candidate]) -> frozenset[str]:
    """Regions in which at least two of them have a price."""
    counts = Counter(region for candidate in candidates for region in candidate.price)
    return frozenset(region for region, n in counts.items() if n > 1)


def split(
    n: int,
    choice: Choice,
    health: Callable[[str], float],
    tried: Collection[str],
    rng: Random,
    region: str | None = None,
) -> list[tuple[str, int]]:
    """How many of `n` messages each provider gets; empty when nobody takes any. `health` is 0 for who is out.

    Providers in `tried` are used only when no other is left. `pinned`: all go to the first listed provider that takes
    them. Else weight x health decides, and among tied ones the price in `region`, in parts of at least one full batch:
    the cumulated shares are sampled at even steps from one random start (stochastic universal sampling, Baker 1987), so
    every provider gets the floor or the ceiling of its share and exactly its share in the long run, and a batch that
    fits one request stays whole.
    """
    live = [(c, c.weight * health(c.provider)) for c in choice.candidates]
    live = [pair for pair in live if pair[1] > 0]
    fresh = [pair for pair in live if pair[0].provider not in tried] if tried else live
    live = fresh or live
    if not live or n <= 0:
        return []
    if choice.pinned or len(live) == 1:
        return [(live[0][0].provider, n)]
    if region in choice.priced:
        live = _cheaper(live, region)
    pieces = max(1, n // max(c.max_batch for c, _ in live))
    counts = _sample(pieces, [share for _, share in live], rng)
    return _deal(n, pieces, [(c.provider, k) for (c, _), k in zip(live, counts, strict=True) if k])


def _sample(pieces: int, shares: Sequence[float], rng: Random) -> list[int]:
    """How many of `pieces` even steps fall on each share."""
    bounds = list(accumulate(shares))
    step = bounds[-1] / pieces
    point = rng.random() * step
    counts = [0] * len(shares)
    at = 0
    for _ in range(pieces):
        while at < len(bounds) - 1 and point >= bounds[at]:
            at += 1
        counts[at] += 1
        point += step
    return counts


def _deal(n: int, pieces: int, taken: list[tuple[str, int]]) -> list[tuple[str, int]]:
    """Pieces as messages: what does not divide evenly goes to the first ones, one message each."""
    parts, done = [], 0
    for provider, k in taken:
        before = n * done // pieces
        done += k
        parts.append((provider, n * done // pieces - before))
    return parts


def _cheaper(live: list[tuple[Candidate, float]], region: str) -> list[tuple[Candidate, float]]:
    """The same shares in all, but those that are tied leave theirs to the cheapest, except for `KEPT_WARM` of it."""
    least = max(share for _, share in live) * (1 - TIE)
    tied = [(c, share) for c, share in live if share >= least and region in c.price]
    lowest = min((c.price[region] for c, _ in tied), default=0.0)
    cheap = sum(share for c, share in tied if c.price[region] == lowest)
    dear = {c.provider for c, _ in tied if c.price[region] > lowest}
    if not dear:
        return live
    freed = sum(share for c, share in tied if c.provider in dear) * (1 - KEPT_WARM)
    winners = {c.provider for c, _ in tied} - dear
    moved = []
    for c, share in live:
        if c.provider in dear:
            moved.append((c, share * KEPT_WARM))
        else:
            moved.append((c, share + freed * share / cheap if c.provider in winners else share))
    return moved


def shares_of(choice: Choice, health: Callable[[str], float], region: str | None = None) -> dict[str, float]:
    """The share of such messages each candidate gets, in the route's order; together 1, or 0 when all are out. Without
    a region prices do not count."""
    weighed = [(c, c.weight * health(c.provider)) for c in choice.candidates]
    if choice.pinned:
        first = next((c.provider for c, share in weighed if share > 0), None)
        return {c.provider: float(c.provider == first) for c, _ in weighed}
    if region in choice.priced and any(share > 0 for _, share in weighed):
        weighed = _cheaper(weighed, region)
    live = {c.provider: share for c, share in weighed}
    total = sum(live.values())
    return {id_: share / total if total else 0.0 for id_, share in live.items()}


def _matches(match: Match, key: Key) -> bool:
    lists: tuple[Sequence[str], ...] = (match.channels, match.types, match.lines, match.templates, match.regions)
    return all(not allowed or value in allowed for allowed, value in zip(lists, key[:5], strict=True))
