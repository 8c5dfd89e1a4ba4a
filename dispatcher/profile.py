"""Where one user can be reached, resolved once when the profile is read: the first good address of each channel."""

from typing import Any, NamedTuple

import msgspec

from dispatcher.address import normalise, region_of
from dispatcher.calendar import Calendar, calendar_of
from dispatcher.documents import User
from dispatcher.kinds import CHANNELS


class Reach(NamedTuple):
    """One address: `to` in its one spelling, the region of a phone number, and what its kind adds (vendor, account)."""

    to: str
    region: str | None = None
    extra: dict[str, str] | None = None


class StoredUser(User, frozen=True, forbid_unknown_fields=False, omit_defaults=True):
    """A profile as the store keeps it. `dead`: addresses that a provider called invalid since the last write."""

    dead: list[str] = []


class Profile:
    """A user's reachable addresses by channel. `invalid` names channels that have only addresses that cannot be."""

    __slots__ = ("calendar", "invalid", "reach")

    def __init__(self, reach: dict[str, Reach], invalid: frozenset[str], calendar: Calendar | None = None) -> None:
        self.reach = reach
        self.invalid = invalid
        self.calendar = calendar


NOBODY = Profile({}, frozenset())
_decoder = msgspec.json.Decoder(StoredUser)


def decode_user(data: bytes) -> StoredUser:
    """A stored profile."""
    return _decoder.decode(data)


def addresses_of(user: StoredUser, region: str) -> set[str]:
    """Every readable address of a profile, dead or not."""
    found = [_reach(channel, a, region) for channel in CHANNELS for a in getattr(user.addresses, channel)]
    return {reach.to for reach in found if reach is not None}


def profile_of(user: StoredUser, region: str) -> Profile:
    """Resolve a profile's addresses; unreadable and dead ones are passed over."""
    reach: dict[str, Reach] = {}
    invalid = set()
    dead = set(user.dead)
    for channel in CHANNELS:
        for address in getattr(user.addresses, channel):
            found = _reach(channel, address, region)
            if found is None:
                invalid.add(channel)
            elif found.to not in dead:
                reach[channel] = found
                break
    calendar = None if user.timezone is None else calendar_of(user.timezone)
    return Profile(reach, frozenset(invalid - reach.keys()), calendar)


def profile_of_addresses(to: dict[str, str], region: str, known: Profile = NOBODY) -> Profile:
    """The addresses a trigger names itself; they go before those of the user's profile."""
    reach = dict(known.reach)
    invalid = set(known.invalid)
    for channel, text in to.items():
        address = normalise(channel, text, region)
        if address is None:
            invalid.add(channel)
            reach.pop(channel, None)
        else:
            reach[channel] = Reach(address, region_of(channel, address))
            invalid.discard(channel)
    return Profile(reach, frozenset(invalid), known.calendar)


def _reach(channel: str, address: Any, region: str) -> Reach | None:
    text, extra = address, None
    if channel == "push":
        text, extra = address.token, _extra(vendor=address.vendor, app=address.app)
    elif channel == "wechat":
        text, extra = address.openid, _extra(account=address.account)
    to = normalise(channel, text, region)
    return None if to is None else Reach(to, region_of(channel, to), extra)


def _extra(**values: str | None) -> dict[str, str] | None:
    return {name: value for name, value in values.items() if value is not None} or None
