"""The blacklist in memory: entries by user and by address, found without a round trip."""

from datetime import datetime

from dispatcher.documents import BlacklistEntry


def _matches(entry: BlacklistEntry, channel: str, type_: str, line: str, now_ms: int) -> bool:
    if entry.channel is not None and entry.channel != channel:
        return False
    if entry.type is None:
        if type_ == "verification":  # only an entry that names it blocks a code
            return False
    elif entry.type != type_:
        return False
    if entry.line is not None and entry.line != line:
        return False
    return entry.expires_at is None or _ms(entry.expires_at) > now_ms


def _ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)


class BlacklistIndex:
    """Answers which entry, if any, blocks a message."""

    def __init__(self) -> None:
        self._by_id: dict[str, BlacklistEntry] = {}
        self._by_key: dict[str, tuple[BlacklistEntry, ...]] = {}

    def __len__(self) -> int:
        return len(self._by_id)

    def put(self, id_: str, entry: BlacklistEntry) -> None:
        """Add or replace the entry with this id."""
        self.remove(id_)
        self._by_id[id_] = entry
        key = _key(entry)
        self._by_key[key] = (*self._by_key.get(key, ()), entry)

    def remove(self, id_: str) -> None:
        """Forget the entry with this id, if there is one."""
        entry = self._by_id.pop(id_, None)
        if entry is None:
            return
        key = _key(entry)
        left = tuple(e for e in self._by_key[key] if e is not entry)
        if left:
            self._by_key[key] = left
        else:
            del self._by_key[key]

    def find(
        self, user: str | None, address: str, channel: str, type_: str, line: str, now_ms: int
    ) -> BlacklistEntry | None:
        """The first entry for this user or address that matches and has not expired."""
        by_key = self._by_key
        if not by_key:
            return None
        for key in ("u" + user if user is not None else "", "a" + address):
            for entry in by_key.get(key, ()):
                if _matches(entry, channel, type_, line, now_ms):
                    return entry
        return None


def _key(entry: BlacklistEntry) -> str:
    return "u" + entry.user if entry.user is not None else "a" + (entry.address or "")
