"""How a simulated provider behaves: latency, failures, limits and reports. Pure; chance comes in as a `Random`."""

import math
import re
from random import Random
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Struct

Ms = Annotated[float, Meta(ge=0, le=600_000)]
Rate = Annotated[float, Meta(ge=0, le=1)]

_Z99: Final = 2.3263478740408408  # 99th percentile of the standard normal distribution


class Constant(Struct, frozen=True, tag_field="kind", tag="constant", forbid_unknown_fields=True):
    ms: Ms = 0.0

    def draw_s(self, rng: Random) -> float:
        return self.ms / 1_000


class Uniform(Struct, frozen=True, tag_field="kind", tag="uniform", forbid_unknown_fields=True):
    low_ms: Ms
    high_ms: Ms

    def draw_s(self, rng: Random) -> float:
        return rng.uniform(self.low_ms, self.high_ms) / 1_000


class Lognormal(Struct, frozen=True, tag_field="kind", tag="lognormal", forbid_unknown_fields=True):
    """Half of the answers take less than `p50_ms`, one in a hundred more than `p99_ms`."""

    p50_ms: Annotated[float, Meta(gt=0, le=600_000)]
    p99_ms: Annotated[float, Meta(gt=0, le=600_000)]

    def draw_s(self, rng: Random) -> float:
        sigma = math.log(self.p99_ms / self.p50_ms) / _Z99
        return min(rng.lognormvariate(math.log(self.p50_ms), sigma), 600_000) / 1_000


Latency = Constant | Uniform | Lognormal

#: Shares of requests, in the order in which chance is dealt out.
REQUEST_RATES: Final = ("error", "throttle", "hang", "reset", "silent")
MESSAGE_RATES: Final = ("transient", "rejected", "invalid_recipient")


class Reports(Struct, frozen=True, forbid_unknown_fields=True):
    """Delivery reports of accepted messages, POSTed to `url` once `delay_s` has passed."""

    url: Annotated[str, Meta(pattern="^https?://.")]
    delay_s: Annotated[float, Meta(ge=0, le=86_400)] = 0.0
    undelivered_rate: Rate = 0.0


class Behaviour(Struct, frozen=True, forbid_unknown_fields=True):
    """Rates are shares of 1.

    Of requests: `error` (HTTP 500), `throttle` (HTTP 429), `hang` (not taken, never answered), `reset` (read and not
    taken; the connection is reset), `silent` (taken, never answered). Of the messages in the requests that are left:
    `transient`, `rejected`, `invalid_recipient`. `rate_per_s` counts messages, and in no second more are taken; a
    request above it is a 429. `retry_after_s` is the least that a 429 asks for. `refuse`: a port of the provider's own
    refuses connections, and resets those it had; a request that comes in by the common port is reset. Of reports,
    `report_twice` come a second time; each waits up to `report_spread_s` longer, so that they come out of order.
    """

    latency: Latency = Constant()
    error: Rate = 0.0
    throttle: Rate = 0.0
    hang: Rate = 0.0
    reset: Rate = 0.0
    silent: Rate = 0.0
    refuse: bool = False
    transient: Rate = 0.0
    rejected: Rate = 0.0
    invalid_recipient: Rate = 0.0
    rate_per_s: Annotated[float, Meta(gt=0)] | None = None
    retry_after_s: Annotated[float, Meta(ge=0, le=86_400)] = 1.0
    reports: Reports | None = None
    report_twice: Rate = 0.0
    report_spread_s: Annotated[float, Meta(ge=0, le=86_400)] = 0.0

    def request_fate(self, rng: Random) -> str | None:
        """One of `REQUEST_RATES`, or None for a request whose messages are looked at one by one and answered."""
        if self.refuse:
            return "reset"
        if not (self.error or self.throttle or self.hang or self.reset or self.silent):
            return None
        return _pick(rng.random(), tuple((name, getattr(self, name)) for name in REQUEST_RATES))

    @property
    def leaves_unsure(self) -> bool:
        """Whether a client may be left without a word on a request that it wrote."""
        return bool(self.refuse or self.hang or self.reset or self.silent)

    def message_answers(self, count: int, rng: Random) -> list[str] | None:
        """An answer for each of `count` messages; None when all are accepted."""
        if not (self.transient or self.rejected or self.invalid_recipient):
            return None
        shares = tuple((name, rate) for name in MESSAGE_RATES if (rate := getattr(self, name)))
        return [_pick(rng.random(), shares) or "accepted" for _ in range(count)]


def _pick(at: float, shares: tuple[tuple[str, float], ...]) -> str | None:
    for name, rate in shares:
        if at < rate:
            return name
        at -= rate
    return None


class BehaviourError(Exception):
    """A behaviour that cannot be; `path` names the field."""

    def __init__(self, path: str, message: str) -> None:
        super().__init__(f"{path}: {message}")
        self.path = path
        self.message = message


_AT: Final = re.compile(r"^(.*?) - at `\$\.?(.*)`$")


def patched(behaviour: Behaviour, patch: Any) -> Behaviour:
    """The behaviour with some fields replaced; null puts a field back to its default. Raises BehaviourError."""
    if not isinstance(patch, dict):
        raise BehaviourError("", "must be an object")
    fields = {**msgspec.to_builtins(behaviour), **patch}
    try:
        new = msgspec.convert({name: value for name, value in fields.items() if value is not None}, Behaviour)
    except msgspec.ValidationError as error:
        raise behaviour_error(str(error)) from None
    _check(new)
    return new


def behaviour_error(text: str) -> BehaviourError:
    """What msgspec says is wrong with a document, with the field's path apart."""
    found = _AT.match(text)
    message, path = (found.group(1), found.group(2)) if found else (text, "")
    unknown = re.match(r"Object contains unknown field `(.*)`$", message)
    if unknown:
        path = f"{path}.{unknown.group(1)}" if path else unknown.group(1)
    return BehaviourError(path, message)


def _check(behaviour: Behaviour) -> None:
    for names in (REQUEST_RATES, MESSAGE_RATES):
        if sum(getattr(behaviour, name) for name in names) > 1 + 1e-9:
            raise BehaviourError(names[0], f"the rates {', '.join(names)} add up to more than 1")
    match behaviour.latency:
        case Uniform(low_ms, high_ms) if low_ms > high_ms:
            raise BehaviourError("latency.low_ms", "is above `high_ms`")
        case Lognormal(p50_ms, p99_ms) if p50_ms > p99_ms:
            raise BehaviourError("latency.p50_ms", "is above `p99_ms`")
