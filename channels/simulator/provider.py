"""One simulated provider: a request in, what is sent back and when. The protocol is `channels.webhook`'s."""

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Final

import msgspec
from msgspec import UNSET, Struct, UnsetType

from channels.simulator.behaviour import Behaviour
from channels.simulator.http import Outgoing
from channels.simulator.journal import Journal, Received
from channels.standard_webhooks import is_signed


class _Batch(Struct, gc=False):
    messages: list[Received]


class _Result(Struct, gc=False):
    id: str
    answer: str
    ref: str | UnsetType = UNSET
    code: str | UnsetType = UNSET


class _Results(Struct, gc=False):
    results: list[_Result]


_decode: Final = msgspec.json.Decoder(_Batch).decode
_encode: Final = msgspec.json.Encoder().encode
_CODES: Final = {"transient": "SYSTEM_BUSY", "rejected": "CONTENT_ILLEGAL", "invalid_recipient": "MOBILE_ILLEGAL"}


class Accepted(Struct, frozen=True, gc=False):
    """An accepted message, as its delivery report names it."""

    id: str
    ref: str


class RateWindow:
    """At most `rate_per_s` messages in any second; a request larger than that passes only alone."""

    def __init__(self) -> None:
        self._taken: deque[tuple[float, int]] = deque()
        self._sum = 0

    def wait_s(self, count: int, rate_per_s: float, now_s: float) -> float:
        """0 when the messages are taken, else the seconds until they could be."""
        taken = self._taken
        while taken and taken[0][0] <= now_s - 1.0:
            self._sum -= taken.popleft()[1]
        if self._sum + count <= rate_per_s or not taken:
            taken.append((now_s, count))
            self._sum += count
            return 0.0
        return max(taken[0][0] + 1.0 - now_s, 0.001)


class SimulatedProvider:
    """`on_accepted` is told of accepted messages when reports are on."""

    def __init__(
        self,
        name: str,
        journal: Journal,
        rng: Random,
        key: bytes | None = None,
        on_accepted: Callable[[Sequence[Accepted]], None] | None = None,
    ) -> None:
        self.name = name
        self.behaviour = Behaviour()
        self._journal = journal
        self._rng = rng
        self._key = key
        self._on_accepted = on_accepted
        self._window = RateWindow()
        self._refs = journal.receptions(name)  # no reference is given twice, after a restart neither

    def answer(self, headers: Mapping[str, str], body: bytes, now_s: float) -> Outgoing:
        """What this request gets; its messages are in the journal when this returns."""
        if self._key is not None and not is_signed(self._key, headers, body, now_s):
            return Outgoing(401, b'{"error":"bad signature"}')
        try:
            messages = _decode(body).messages
        except (msgspec.MsgspecError, ValueError):
            return Outgoing(400, b'{"error":"not a batch of messages"}')
        behaviour = self.behaviour
        delay_s = behaviour.latency.draw_s(self._rng)
        fate = behaviour.request_fate(self._rng)
        wait_s = 0.0
        if behaviour.rate_per_s is not None and fate in (None, "silent"):
            wait_s = self._window.wait_s(len(messages), behaviour.rate_per_s, now_s)
            fate = "throttle" if wait_s else fate
        if fate is None:
            return self._results(messages, delay_s, now_s)
        if fate == "silent":
            return self._results(messages, None, now_s)
        self._journal.add(self.name, now_s, messages, fate)
        return self._refusal(fate, delay_s, wait_s)

    def use_chance(self, rng: Random) -> None:
        """Draw from this from now on."""
        self._rng = rng

    def _refusal(self, fate: str, delay_s: float, wait_s: float) -> Outgoing:
        """What a request gets that is not taken."""
        match fate:
            case "hang":
                return Outgoing(200, b"", delay_s=None)
            case "reset":
                return Outgoing(200, b"", reset=True)
            case "error":
                return Outgoing(500, b'{"error":"internal error"}', delay_s=delay_s)
        retry_after_s = math.ceil(max(wait_s, self.behaviour.retry_after_s))
        return Outgoing(429, b'{"error":"too fast"}', delay_s=delay_s, retry_after_s=retry_after_s)

    def _results(self, messages: list[Received], delay_s: float | None, now_s: float) -> Outgoing:
        """The messages are taken, as far as each is in order; `delay_s` None: without a word."""
        answers = self.behaviour.message_answers(len(messages), self._rng)
        self._journal.add(self.name, now_s, messages, answers or "accepted")
        first = self._refs + 1
        self._refs += len(messages)
        prefix = f"{self.name}-"
        if answers is None:
            results = [_Result(m.id, "accepted", f"{prefix}{ref}") for ref, m in enumerate(messages, first)]
        else:
            results = [
                _Result(m.id, a, f"{prefix}{ref}") if a == "accepted" else _Result(m.id, a, UNSET, _CODES[a])
                for ref, (m, a) in enumerate(zip(messages, answers, strict=True), first)
            ]
        if self.behaviour.reports is not None and self._on_accepted is not None:
            self._on_accepted([Accepted(r.id, r.ref) for r in results if r.ref is not UNSET])
        return Outgoing(200, _encode(_Results(results)), delay_s=delay_s)
