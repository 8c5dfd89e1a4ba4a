"""The shard's view of user profiles: a bounded cache in front of the store, never stale: writes pass through it."""

import asyncio
from collections.abc import Iterable

import msgspec

from dispatcher.ident import partition_of
from dispatcher.kinds import CHANNELS
from dispatcher.profile import NOBODY, Profile, StoredUser, addresses_of, decode_user, profile_of, revived
from dispatcher.store.profiles import ProfileStore


class Profiles:
    """Profiles of one shard's users."""

    def __init__(self, store: ProfileStore, partitions: int, region: str, max_users: int) -> None:
        self._store = store
        self._partitions = partitions
        self._region = region
        self._max_users = max_users
        self._known: dict[str, Profile] = {}
        self._writes: dict[str, int] = {}  # users being written now: what was read meanwhile may be old
        self._loads: list[set[str]] = []  # of each load that is out: users whose writing has ended since it asked
        self._lock = asyncio.Lock()

    def missing(self, users: Iterable[str | None]) -> list[str]:
        """Those of the users that are not in the cache."""
        known = self._known
        return list({user for user in users if user is not None and user not in known})

    def get(self, user: str | None) -> Profile:
        """The cached profile, or nobody's."""
        return NOBODY if user is None else self._known.get(user, NOBODY)

    async def load(self, users: Iterable[str]) -> dict[str, Profile]:
        """These users' profiles, each as of the moment of the answer. It holds also those that the cache had and lost
        to others while the store was asked, and those that it may not keep."""
        wanted = list(dict.fromkeys(users))
        found: dict[str, Profile] = {}
        written: set[str] = set()
        self._loads.append(written)
        try:
            while ask := [user for user in wanted if user not in found and user not in self._known]:
                await self._fetch(ask, found, written)
        finally:
            self._loads = [load for load in self._loads if load is not written]
        return {user: self._known.get(user) or found[user] for user in wanted}

    async def _fetch(self, users: list[str], found: dict[str, Profile], written: set[str]) -> None:
        written.clear()
        stored = await self._store.get_many([(partition_of(user, self._partitions), user) for user in users])
        for user, data in zip(users, stored, strict=True):
            found[user] = profile = NOBODY if data is None else profile_of(decode_user(data), self._region)
            if user not in written and user not in self._writes and user not in self._known:
                self._keep(user, profile)
        for user in written:  # read before the write: the cache has the new one, or it is asked for again
            found.pop(user, None)

    async def read(self, user: str) -> bytes | None:
        """The stored profile, for people."""
        return (await self._store.get_many([(partition_of(user, self._partitions), user)]))[0]

    async def write(self, users: list[tuple[str, bytes | None]]) -> None:
        """Store profiles (None deletes). When this returns, every later decision sees them."""
        async with self._lock:
            await self._write(users)

    async def mark_dead(self, user: str, address: str) -> None:
        """A provider called this address invalid: do not use it again until the profile is written anew."""
        async with self._lock:
            data = await self.read(user)
            if data is None:
                return
            stored = decode_user(data)
            # A trigger may have named an address of its own: only the profile's can be dead to it.
            if address not in stored.dead and address in addresses_of(stored, self._region):
                changed = msgspec.structs.replace(stored, dead=[*stored.dead, address])
                await self._write([(user, msgspec.json.encode(changed))])

    async def merge(self, user: str, patch: dict[str, object]) -> bytes | None:
        """Apply a JSON merge patch (RFC 7396); the merged profile, or None when the user does not exist. Addresses of
        a channel that is in the patch are registered anew.
        Raises `msgspec.ValidationError`."""
        async with self._lock:
            data = await self.read(user)
            if data is None:
                return None
            merged = msgspec.convert(_merge(msgspec.json.decode(data), patch), StoredUser)
            addresses = patch.get("addresses")
            if isinstance(addresses, dict):
                merged = revived(merged, [channel for channel in addresses if channel in CHANNELS], self._region)
            encoded = msgspec.json.encode(merged)
            await self._write([(user, encoded)])
            return encoded

    async def _write(self, users: list[tuple[str, bytes | None]]) -> None:
        for user, _ in users:
            self._writes[user] = self._writes.get(user, 0) + 1
        try:
            kept = [(partition_of(u, self._partitions), u, data) for u, data in users if data is not None]
            gone = [(partition_of(u, self._partitions), u) for u, data in users if data is None]
            if kept:
                await self._store.put_many(kept)
            if gone:
                await self._store.delete(gone)
            for user, data in users:
                self._keep(user, NOBODY if data is None else profile_of(decode_user(data), self._region))
        except BaseException:  # the store may have taken it, so what the cache says may be old
            for user, _ in users:
                self._known.pop(user, None)
            raise
        finally:
            for written in self._loads:
                written.update(user for user, _ in users)
            for user, _ in users:
                self._writes[user] -= 1
                if not self._writes[user]:
                    del self._writes[user]

    def _keep(self, user: str, profile: Profile) -> None:
        if user not in self._known and len(self._known) >= self._max_users:
            del self._known[next(iter(self._known))]  # first in, first out: a hit then costs one lookup, no bookkeeping
        self._known[user] = profile


def _merge(target: object, patch: dict[str, object]) -> dict[str, object]:
    merged = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, dict):
            merged[key] = _merge(merged.get(key), value)
        else:
            merged[key] = value
    return merged
