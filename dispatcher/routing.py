"""Which providers may carry a message, and how a batch is divided among them."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import accumulate
from random import Random
from typing import Final

from msgspec import Struct

from dispatcher.documents import Match, Provider, Route

_MOST_CACHED: Final = 65_536
#: channel, type, line, template, region
Key = tuple[str, str, str, str, str | None]


class Candidate(Struct, frozen=True):
    """A provider a route allows, with its configured weight."""

    provider: str
    weight: float
    max_batch: int


class Choice(Struct, frozen=True):
    """What a route says for one channel; `number` tells choices of one table apart."""

    number: int
    candidates: tuple[Candidate, ...]
    pinned: bool = False


class RouteTable:
    """The routes as looked up by message: the first that matches wins, an empty match list means all.

    A route is for the channels of the providers it lists, so a route without `match.channels` that lists SMS providers
    does not hide the e-mail ones. Where no route matches, all enabled providers of the channel share equally.
    """

    def __init__(self, routes: Sequence[Route] = (), providers: Mapping[str, Provider] | None = None) -> None:
        self._routes = routes
        self._providers = providers or {}
        self._choices: dict[tuple[int, str], Choice] = {}  # route (-1: none matched) and channel
        self._cache: dict[Key, Choice] = {}

    def choice(self, channel: str, type_: str, line: str, template: str, region: str | None) -> Choice:
        """Who may carry such a message; no candidates when nobody may."""
        key = (channel, type_, line, template, region)
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
                for id_, share in _shares(choice, health).items():
                    shares.setdefault(id_, share)
        return shares

    def _look_up(self, key: Key) -> Choice:
        channel = key[0]
        for number, route in enumerate(self._routes):
            if _matches(route.match, key) and self._serves(route, channel):
                return self._choice(number, channel)
        return self._choice(-1, channel)

    def _serves(self, route: Route, channel: str) -> bool:
        listed = (self._providers.get(entry.id) for entry in route.providers)
        return any(provider is not None and provider.channel == channel for provider in listed)

    def _choice(self, number: int, channel: str) -> Choice:
        found = self._choices.get((number, channel))
        if found is None:
            route = self._routes[number] if number >= 0 else None
            listed = ((id_, 1.0) for id_ in self._providers)
            weights = listed if route is None else ((entry.id, entry.weight) for entry in route.providers)
            candidates = tuple(self._enabled(weights, channel))
            found = Choice(len(self._choices), candidates, route is not None and route.mode == "pinned")
            self._choices[number, channel] = found
        return found

    def _enabled(self, weights: Iterable[tuple[str, float]], channel: str) -> Iterable[Candidate]:
        for id_, weight in weights:
            provider = self._providers.get(id_)
            if provider is not None and provider.enabled and provider.channel == channel and weight > 0:
                yield Candidate(id_, weight, provider.max_batch)


def split(
    n: int, choice: Choice, health: Callable[[str], float], tried: Collection[str], rng: Random
) -> list[tuple[str, int]]:
    """How many of `n` messages each provider gets; empty when nobody takes any. `health` is 0 for who is out.

    Providers in `tried` are used only when no other is left. `pinned`: all go to the first listed provider that takes
    them. Else weight x health decides, in parts of at least one full batch: the cumulated shares are sampled at even
    steps from one random start (stochastic universal sampling, Baker 1987), so every provider gets the floor or the
    ceiling of its share and exactly its share in the long run, and a batch that fits one request stays whole.
    """
    live = [(c, c.weight * health(c.provider)) for c in choice.candidates]
    live = [pair for pair in live if pair[1] > 0]
    fresh = [pair for pair in live if pair[0].provider not in tried] if tried else live
    live = fresh or live
    if not live or n <= 0:
        return []
    if choice.pinned or len(live) == 1:
        return [(live[0][0].provider, n)]
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


def _shares(choice: Choice, health: Callable[[str], float]) -> dict[str, float]:
    live = {c.provider: c.weight * health(c.provider) for c in choice.candidates}
    if choice.pinned:
        first = next((id_ for id_, share in live.items() if share > 0), None)
        return {id_: float(id_ == first) for id_ in live}
    total = sum(live.values())
    return {id_: share / total if total else 0.0 for id_, share in live.items()}


def _matches(match: Match, key: Key) -> bool:
    lists: tuple[Sequence[str], ...] = (match.channels, match.types, match.lines, match.templates, match.regions)
    return all(not allowed or value in allowed for allowed, value in zip(lists, key, strict=True))
