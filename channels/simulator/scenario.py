"""Scripted faults: what a simulated provider's behaviour is at which time. Pure; time and the seed come in.

A scenario is data, in JSON or TOML. The shipped ones are the files of the folder `scenarios`.
"""

import math
import tomllib
from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Struct

from channels.simulator.behaviour import Behaviour, BehaviourError, Rate, behaviour_error, patched

_FOLDER: Final = Path(__file__).parent / "scenarios"
Seconds = Annotated[float, Meta(ge=0, le=86_400)]


class Step(Struct, frozen=True, forbid_unknown_fields=True):
    """From `at_s` on, `behaviour` is a patch of what the provider had before the scenario; {} is just that.

    Steps do not add up: each says all that is different while it lasts.
    """

    at_s: Seconds
    behaviour: dict[str, Any] = {}
    note: str = ""


class Scenario(Struct, frozen=True, forbid_unknown_fields=True):
    """Steps in the order of their times, seconds from the beginning; after `ends_s` all is as before.

    With `repeat` it begins anew instead. With `jitter` each step begins later by up to that share of its length.
    """

    steps: Annotated[list[Step], Meta(min_length=1, max_length=1_000)]
    ends_s: Annotated[float, Meta(gt=0, le=86_400)]
    about: str = ""
    repeat: bool = False
    jitter: Rate = 0.0


class Order(Struct, frozen=True, forbid_unknown_fields=True):
    """What is asked for: a shipped scenario by its name, or one of one's own with `steps` and `ends_s`.

    All times are multiplied by `stretch`; `seed` is of all chance while it lasts.
    """

    name: str = ""
    steps: list[Step] | None = None
    ends_s: float | None = None
    about: str = ""
    repeat: bool | None = None
    jitter: float | None = None
    seed: int = 0
    stretch: Annotated[float, Meta(gt=0, le=1_000)] = 1.0

    def scenario(self) -> Scenario:
        """Raises BehaviourError, whose path leads into this document."""
        if self.steps is None:
            found = msgspec.to_builtins(shipped(self.name))
        else:
            found = {"steps": self.steps, "about": self.about, "ends_s": self.ends_s}
            found = {name: value for name, value in msgspec.to_builtins(found).items() if value is not None}
        own = {"repeat": self.repeat, "jitter": self.jitter}
        return _checked(found | {name: value for name, value in own.items() if value is not None})


class Moment(Struct, frozen=True):
    """Which step it is, None before the first and after the end, and until when; infinity: for ever."""

    step: int | None
    until_s: float


def read_order(text: bytes) -> Order:
    """An order written in JSON, or in TOML. Raises BehaviourError; ValueError for what is neither."""
    try:
        document = msgspec.json.decode(text)
    except (msgspec.MsgspecError, RecursionError):
        document = tomllib.loads(text.decode())
    try:
        return msgspec.convert(document, Order)
    except msgspec.ValidationError as error:
        raise behaviour_error(str(error)) from None


def named_orders(words: Sequence[str], providers: Sequence[str]) -> dict[str, Order]:
    """Orders by provider, from `NAME` or `FILE` for every one, or `PROVIDER=NAME` for one of them.

    Raises BehaviourError, whose path is the word; OSError, and ValueError for a file that is neither JSON nor TOML.
    """
    orders: dict[str, Order] = {}
    for word in words:
        whose, found, name = word.rpartition("=")
        try:
            order = Order(name=name) if name in names() else read_order(Path(name).read_bytes())
            order.scenario()
        except FileNotFoundError:
            raise BehaviourError(word, f"no such file, and no scenario: one of {', '.join(names())}") from None
        except BehaviourError as error:
            raise BehaviourError(f"{word}: {error.path}", error.message) from None
        orders |= {provider: order for provider in ([whose] if found else providers)}
    return orders


@lru_cache(maxsize=64)
def shipped(name: str) -> Scenario:
    """The shipped scenario of this name. Raises BehaviourError."""
    if name not in names():
        raise BehaviourError("name", f"no scenario {name!r}: one of {', '.join(names())}")
    return _checked(tomllib.loads((_FOLDER / f"{name}.toml").read_text()))


@lru_cache(maxsize=1)
def names() -> tuple[str, ...]:
    """The shipped scenarios, sorted."""
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.toml")))


def _checked(document: dict[str, Any]) -> Scenario:
    try:
        scenario = msgspec.convert(document, Scenario)
    except msgspec.ValidationError as error:
        raise behaviour_error(str(error)) from None
    times_s = [step.at_s for step in scenario.steps]
    for place, at_s in enumerate(times_s):
        if place and at_s <= times_s[place - 1]:
            raise BehaviourError(f"steps[{place}].at_s", "is not after the step before")
    if scenario.ends_s <= times_s[-1]:
        raise BehaviourError("ends_s", "is not after the last step")
    behaviours(Behaviour(), scenario)
    return scenario


def behaviours(base: Behaviour, scenario: Scenario) -> list[Behaviour]:
    """What each step makes of a provider's own behaviour. Raises BehaviourError."""
    found = []
    for place, step in enumerate(scenario.steps):
        try:
            found.append(patched(base, step.behaviour))
        except BehaviourError as error:
            path = f"steps[{place}].behaviour"
            raise BehaviourError(f"{path}.{error.path}" if error.path else path, error.message) from None
    return found


def stretched(scenario: Scenario, factor: float) -> Scenario:
    """The same with every time multiplied."""
    steps = [msgspec.structs.replace(step, at_s=step.at_s * factor) for step in scenario.steps]
    return msgspec.structs.replace(scenario, steps=steps, ends_s=scenario.ends_s * factor)


def moment(scenario: Scenario, seed: int, elapsed_s: float) -> Moment:
    """Where the scenario is, `elapsed_s` seconds after it began. `until_s` is always later than that."""
    cycle = int(elapsed_s // scenario.ends_s)
    if cycle and not scenario.repeat:
        return Moment(None, math.inf)
    starts_s = _starts_s(scenario, seed, cycle)
    within_s = elapsed_s - cycle * scenario.ends_s
    place = bisect_right(starts_s, within_s)
    next_s = starts_s[place] if place < len(starts_s) else scenario.ends_s
    until_s = max(cycle * scenario.ends_s + next_s, math.nextafter(elapsed_s, math.inf))
    return Moment(place - 1 if place else None, until_s)


def _starts_s(scenario: Scenario, seed: int, cycle: int) -> list[float]:
    """When the steps of one round begin, seconds from the round's beginning; each before the next one's `at_s`."""
    times_s = [step.at_s for step in scenario.steps]
    if not scenario.jitter:
        return times_s
    rng = Random(f"{seed}:{cycle}")
    lengths_s = [after - at for at, after in zip(times_s, [*times_s[1:], scenario.ends_s], strict=True)]
    return [at + scenario.jitter * rng.random() * length for at, length in zip(times_s, lengths_s, strict=True)]
