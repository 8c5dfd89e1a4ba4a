"""Where one user can be reached, resolved once when the profile is read: the first good address of each channel."""

from collections.abc import Collection
from typing import Any, Final, NamedTuple

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


#: A push goes to so many of a user's devices at most, the first ones of the profile.
MOST_DEVICES: Final = 10


class Profile:
    """A user's reachable addresses by channel. `invalid` names channels that have only addresses that cannot be.

    `devices`: all live push tokens, where there are several; None: the trigger named the one to use.
    """

    __slots__ = ("calendar", "devices", "invalid", "reach")

    def __init__(
        self,
        reach: dict[str, Reach],
        invalid: frozenset[str],
        calendar: Calendar | None = None,
        devices: tuple[Reach, ...] | None = (),
    ) -> None:
        self.reach = reach
        self.invalid = invalid
        self.calendar = calendar
        self.devices = devices


NOBODY = Profile({}, frozenset())
_decoder = msgspec.json.Decoder(StoredUser)


def decode_user(data: bytes) -> StoredUser:
    """A stored profile."""
    return _decoder.decode(data)


def addresses_of(user: StoredUser, region: str) -> set[str]:
    """Every readable address of a profile, dead or not."""
    return {reach.to for channel in CHANNELS for reach in _all_of(user, channel, region)}


def revived(user: StoredUser, channels: Collection[str], region: str) -> StoredUser:
    """The profile after addresses of these channels were written: they are to be tried again."""
    if not user.dead:
        return user
    named = {reach.to for channel in channels for reach in _all_of(user, channel, region)}
    kept = {reach.to for channel in CHANNELS for reach in _all_of(user, channel, region)} - named
    return msgspec.structs.replace(user, dead=[address for address in user.dead if address in kept])


def _all_of(user: StoredUser, channel: str, region: str) -> list[Reach]:
    found = [_reach(channel, address, region) for address in getattr(user.addresses, channel)]
    return [reach for reach in found if reach is not None]


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
    devices: tuple[Reach, ...] = ()
    if len(user.addresses.push) > 1:
        tokens = (_reach("push", address, region) for address in user.addresses.push)
        live = {token.to: token for token in tokens if token is not None and token.to not in dead}
        devices = tuple(live.values())[:MOST_DEVICES] if len(live) > 1 else ()
    return Profile(reach, frozenset(invalid - reach.keys()), calendar, devices)


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
    return Profile(reach, frozenset(invalid), known.calendar, None if "push" in to else known.devices)


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
