"""The blacklist in memory: whom it names, found without a round trip, at about a hundred bytes an entry.

A million entries say few different things, so what they say is shared: an entry costs its user or address and a place
in a dict. An entry's id follows from whom and what it blocks, so the index keeps no ids.
"""

from datetime import datetime
from hashlib import blake2b
from typing import Final

import msgspec
from msgspec import Struct

from dispatcher.documents import BlacklistEntry

#: Different contents that are shared. Where each entry has a reason or an end of its own, sharing would only cost.
MOST_SHARED: Final = 4_096
#: Each table is kept in so many parts: a dict of a million that grows is copied at one go, which took 60 ms.
PARTS: Final = 64


class Listed(Struct, frozen=True, gc=False):
    """What one entry says of whom it names; None = any (any type means every type but `verification`)."""

    channel: str | None = None
    type: str | None = None
    line: str | None = None
    expires_ms: int | None = None
    why: str | None = None


#: Nearly all of those named have one entry, which then needs no tuple around it.
_Entries = Listed | tuple[Listed, ...]
_Part = dict[str, _Entries]
_Table = tuple[_Part, ...]


def expires_ms(entry: BlacklistEntry) -> int | None:
    """When the entry ends, epoch milliseconds."""
    return None if entry.expires_at is None else _ms(entry.expires_at)


def entry_id(entry: BlacklistEntry) -> str:
    """The id of whom and what an entry blocks; how long and why do not matter."""
    return _id(entry.user, entry.address, entry.channel, entry.type, entry.line)


def _id(user: str | None, address: str | None, channel: str | None, type_: str | None, line: str | None) -> str:
    return blake2b(msgspec.json.encode((user, address, channel, type_, line)), digest_size=12).hexdigest()


def _ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)


def _matches(listed: Listed, channel: str, type_: str, line: str, now_ms: int) -> bool:
    if listed.channel is not None and listed.channel != channel:
        return False
    if listed.type is None:
        if type_ == "verification":  # only an entry that names it blocks a code
            return False
    elif listed.type != type_:
        return False
    if listed.line is not None and listed.line != line:
        return False
    return listed.expires_ms is None or listed.expires_ms > now_ms


def _first(entries: _Entries, channel: str, type_: str, line: str, now_ms: int) -> Listed | None:
    if isinstance(entries, Listed):
        return entries if _matches(entries, channel, type_, line, now_ms) else None
    for listed in entries:
        if _matches(listed, channel, type_, line, now_ms):
            return listed
    return None


def _each(entries: _Entries) -> tuple[Listed, ...]:
    return (entries,) if isinstance(entries, Listed) else entries


class BlacklistIndex:
    """Answers which entry, if any, blocks a message. Of the same whom and what there is one entry."""

    def __init__(self) -> None:
        self._users: _Table = tuple({} for _ in range(PARTS))
        self._addresses: _Table = tuple({} for _ in range(PARTS))
        self._count = 0
        self._shared: dict[Listed, Listed] = {}
        self._words: dict[str, str] = {}

    def __len__(self) -> int:
        return self._count

    def put(self, entry: BlacklistEntry) -> None:
        """Add an entry; it replaces the one of the same whom and what."""
        part, key = self._place(entry)
        listed = self._listed(entry)
        before = part.get(key)
        if before is None:
            part[key] = listed
            self._count += 1
            return
        kept = _without(before, entry)
        part[key] = (*kept, listed) if kept else listed
        self._count += len(kept) + 1 - len(_each(before))

    def remove(self, entry: BlacklistEntry) -> None:
        """Forget the entry of the same whom and what, if there is one."""
        part, key = self._place(entry)
        before = part.get(key)
        if before is not None:
            self._keep(part, key, before, _without(before, entry))

    def find(
        self, user: str | None, address: str, channel: str, type_: str, line: str, now_ms: int
    ) -> Listed | None:
        """The first entry for this user or address that matches and has not expired."""
        if user is not None:
            mine = self._users[hash(user) % PARTS]
            if user in mine:
                found = _first(mine[user], channel, type_, line, now_ms)
                if found is not None:
                    return found
                self._forget(mine, user, now_ms)
        there = self._addresses[hash(address) % PARTS]
        if address in there:
            found = _first(there[address], channel, type_, line, now_ms)
            if found is not None:
                return found
            self._forget(there, address, now_ms)
        return None

    def ids(self, user: str | None, address: str | None) -> list[str]:
        """The ids of the entries for this user, and of those for this address."""
        mine = _each(self._users[hash(user) % PARTS].get(user, ())) if user is not None else ()
        there = _each(self._addresses[hash(address) % PARTS].get(address, ())) if address is not None else ()
        return [
            *(_id(user, None, listed.channel, listed.type, listed.line) for listed in mine),
            *(_id(None, address, listed.channel, listed.type, listed.line) for listed in there),
        ]

    def _forget(self, part: _Part, key: str, now_ms: int) -> None:
        """Nothing matched: what has ended is dropped on this occasion."""
        live = tuple(e for e in _each(part[key]) if e.expires_ms is None or e.expires_ms > now_ms)
        self._keep(part, key, part[key], live)

    def _keep(self, part: _Part, key: str, before: _Entries, kept: tuple[Listed, ...]) -> None:
        gone = len(_each(before)) - len(kept)
        if not gone:
            return
        self._count -= gone
        if kept:
            part[key] = kept if len(kept) > 1 else kept[0]
        else:
            del part[key]

    def _place(self, entry: BlacklistEntry) -> tuple[_Part, str]:
        if entry.user is not None:
            return self._users[hash(entry.user) % PARTS], entry.user
        address = entry.address or ""
        return self._addresses[hash(address) % PARTS], address

    def _listed(self, entry: BlacklistEntry) -> Listed:
        listed = Listed(entry.channel, entry.type, self._word(entry.line), expires_ms(entry), self._word(entry.why))
        if len(self._shared) >= MOST_SHARED:
            self._shared.clear()  # what was shared stays so
        return self._shared.setdefault(listed, listed)

    def _word(self, word: str | None) -> str | None:
        if word is None:
            return None
        if len(self._words) >= MOST_SHARED:
            self._words.clear()
        return self._words.setdefault(word, word)


def _without(entries: _Entries, entry: BlacklistEntry) -> tuple[Listed, ...]:
    """The entries that do not say the same as this one."""
    what = (entry.channel, entry.type, entry.line)
    return tuple(e for e in _each(entries) if (e.channel, e.type, e.line) != what)
