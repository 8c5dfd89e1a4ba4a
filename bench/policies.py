"""Ways to choose a provider for each message, ours among them."""

from collections import deque
from collections.abc import Mapping
from random import Random
from typing import Final, Protocol

from dispatcher.health import Health
from dispatcher.receipt import Answer
from dispatcher.routing import Candidate, Choice, split
from dispatcher.vitals import Pulse

LATE_S: Final = 1.0  # a message that is not accepted by then is late
REGION: Final = "CN"
ROUTERS: Final = 2
SENDERS: Final = 2
PING_S: Final = 0.25


class Policy(Protocol):
    """`pick` names a provider that is not among the `tried` if it can; None: nobody takes it, it waits."""

    def pick(self, tried: list[str], now_s: float) -> str | None: ...

    def ended(self, provider: str, answer: Answer, seconds: float, now_s: float) -> None: ...

    def tick(self, now_s: float) -> None:
        """Called every `PING_S`."""
        ...


class Static:
    """Fixed weights, drawn by lot."""

    def __init__(self, prices: Mapping[str, float], rng: Random) -> None:
        self.weights = dict.fromkeys(prices, 1.0)
        self._rng = rng

    def pick(self, tried: list[str], now_s: float) -> str | None:
        """One of the untried, by weight."""
        ids = [id_ for id_ in self.weights if id_ not in tried] or list(self.weights)
        return self._rng.choices(ids, [self.weights[id_] + 1e-9 for id_ in ids])[0]

    def ended(self, provider: str, answer: Answer, seconds: float, now_s: float) -> None:
        """Nothing is learned."""

    def tick(self, now_s: float) -> None:
        """Nothing changes."""


class RoundRobin:
    """Each in turn."""

    def __init__(self, prices: Mapping[str, float], rng: Random) -> None:
        self._ids = list(prices)
        self._turn = rng.randrange(len(self._ids))

    def pick(self, tried: list[str], now_s: float) -> str | None:
        """The next one that is untried."""
        for _ in self._ids:
            self._turn = (self._turn + 1) % len(self._ids)
            if self._ids[self._turn] not in tried:
                break
        return self._ids[self._turn]

    def ended(self, provider: str, answer: Answer, seconds: float, now_s: float) -> None:
        """Nothing is learned."""

    def tick(self, now_s: float) -> None:
        """Nothing changes."""


class TwoChoices:
    """The one with fewer requests in the air of two drawn by lot (Mitzenmacher, "The Power of Two Choices", 2001)."""

    def __init__(self, prices: Mapping[str, float], rng: Random) -> None:
        self._air = dict.fromkeys(prices, 0)
        self._rng = rng

    def pick(self, tried: list[str], now_s: float) -> str | None:
        """The less busy of two untried ones."""
        ids = [id_ for id_ in self._air if id_ not in tried] or list(self._air)
        two = self._rng.sample(ids, min(2, len(ids)))
        best = min(two, key=self._air.__getitem__)
        self._air[best] += 1
        return best

    def ended(self, provider: str, answer: Answer, seconds: float, now_s: float) -> None:
        """It is less busy."""
        self._air[provider] -= 1

    def tick(self, now_s: float) -> None:
        """Nothing changes."""


class Stepper(Static):
    """As GOV.UK Notify does it: 50 errors in a minute, or 15 % of a minute's messages slow, move 10 of 100 points to
    the others, at most once a minute. Its way back (10 points after an hour) is longer than a run."""

    def __init__(self, prices: Mapping[str, float], rng: Random) -> None:
        super().__init__(prices, rng)
        self.weights = dict.fromkeys(prices, 100.0 / len(prices))
        self._seen: dict[str, deque[tuple[float, bool, bool]]] = {id_: deque() for id_ in prices}
        self._moved_s = float("-inf")

    def ended(self, provider: str, answer: Answer, seconds: float, now_s: float) -> None:
        """Remembered for a minute."""
        self._seen[provider].append((now_s, answer in ("transient", "unknown"), seconds > LATE_S))

    def tick(self, now_s: float) -> None:
        """Move points away from who deserves it."""
        for provider, seen in self._seen.items():
            while seen and seen[0][0] < now_s - 60:
                seen.popleft()
            errors, slow = sum(bad for _, bad, _ in seen), sum(late for _, _, late in seen)
            if (errors >= 50 or slow > 0.15 * len(seen) > 1.5) and now_s >= self._moved_s + 60:
                self._moved_s = now_s
                points = min(10.0, self.weights[provider])
                self.weights[provider] -= points
                for other in self.weights:
                    if other != provider:
                        self.weights[other] += points / (len(self.weights) - 1)


class Ours:
    """The real code: senders keep a pulse, routers merge what answers and pings tell them and choose."""

    def __init__(self, prices: Mapping[str, float], rng: Random) -> None:
        self._choice = Choice(
            0,
            tuple(Candidate(id_, 1.0, 1, {REGION: price}) for id_, price in prices.items()),
            priced=frozenset([REGION]) if len(set(prices.values())) > 1 else frozenset(),
        )
        self._rng = rng
        self._pulses = {id_: [Pulse(0.0) for _ in range(SENDERS)] for id_ in prices}
        self._air: dict[str, deque[tuple[float, int, int]]] = {id_: deque() for id_ in prices}
        self._routers = [Health(self._count) for _ in range(ROUTERS)]
        for health in self._routers:
            health.keep(dict.fromkeys(prices, "sms"))
        self.changes = 0
        self._turn = 0

    def _count(self, provider: str, cause: str) -> None:
        self.changes += 1

    def pick(self, tried: list[str], now_s: float) -> str | None:
        """As a router does with a batch of one."""
        self._turn = (self._turn + 1) % ROUTERS
        health = self._routers[self._turn]
        ids = [candidate.provider for candidate in self._choice.candidates]
        parts = split(1, self._choice, lambda id_: health.share(id_, now_s), tried, self._rng, REGION)
        chosen = health.probed((id_ for id_ in ids if id_ not in tried), now_s) or (parts[0][0] if parts else None)
        if chosen is not None:
            sender = self._rng.randrange(SENDERS)
            self._pulses[chosen][sender].began(now_s)
            self._air[chosen].append((now_s, self._turn, sender))
        return chosen

    def ended(self, provider: str, answer: Answer, seconds: float, now_s: float) -> None:
        """The sender counts it; the router that asked hears of it."""
        air = self._air[provider]
        at = next(n for n, (start_s, _, _) in enumerate(air) if abs(start_s + seconds - now_s) < 1e-9)
        _, router, sender = air[at]
        del air[at]
        pulse = self._pulses[provider][sender]
        pulse.ended(seconds, [answer], now_s)
        self._routers[router].heard(provider, sender, pulse.vitals(now_s), now_s)

    def tick(self, now_s: float) -> None:
        """Every router asks every sender."""
        for provider, pulses in self._pulses.items():
            for sender, pulse in enumerate(pulses):
                for health in self._routers:
                    health.heard(provider, sender, pulse.vitals(now_s), now_s)


POLICIES: Final[dict[str, type[Static] | type[RoundRobin] | type[TwoChoices] | type[Stepper] | type[Ours]]] = {
    "static weights": Static,
    "round robin": RoundRobin,
    "two choices": TwoChoices,
    "stepper": Stepper,
    "ours": Ours,
}
