"""Texts that come in parts, put together; bounded in number and time. Pure."""

from itertools import takewhile
from typing import Final

from channels.smpp.alphabet import decode
from channels.smpp.delivery import Part

#: Texts that wait for a part, at most; before one more the oldest is given up.
MOST: Final = 1_000
#: A text that is not whole by then is given up. A phone sends its parts one after the other.
KEEP_S: Final = 600.0


#: Sender and recipient.
Key = tuple[str, str]
_Join = tuple[Key, int, int]  # with reference and total


class Joins:
    """Parts by sender and reference. A text that is given up is handed over with what there is of it."""

    def __init__(self, most: int = MOST, keep_s: float = KEEP_S) -> None:
        self._most = most
        self._keep_s = keep_s
        self._texts: dict[_Join, tuple[float, dict[int, Part]]] = {}  # since when, oldest first

    def __len__(self) -> int:
        return len(self._texts)

    def put(self, key: Key, part: Part, now_s: float) -> tuple[str | None, list[tuple[Key, str]]]:
        """The whole text, if this part completes it, and `(key, text)` of what was given up. The parts stay until
        `forget`: a text that could not be kept is whole again when its last part is sent again."""
        if part.total == 1:
            return decode(part.coding, part.raw), []
        given_up = self.expire(now_s)
        join = (key, part.reference, part.total)
        if join not in self._texts:
            if len(self._texts) >= self._most:
                given_up.append(self._give_up(next(iter(self._texts))))
            self._texts[join] = (now_s, {})
        parts = self._texts[join][1]
        parts.setdefault(part.place, part)  # sent again: the same
        return _join(parts) if len(parts) == part.total else None, given_up

    def forget(self, key: Key, part: Part) -> None:
        """The text of this part is kept."""
        self._texts.pop((key, part.reference, part.total), None)

    def expire(self, now_s: float) -> list[tuple[Key, str]]:
        """What has waited too long."""
        late = takewhile(lambda item: item[1][0] <= now_s - self._keep_s, self._texts.items())
        return [self._give_up(join) for join, _ in list(late)]

    def _give_up(self, join: _Join) -> tuple[Key, str]:
        _, parts = self._texts.pop(join)
        return join[0], _join(parts)


def _join(parts: dict[int, Part]) -> str:
    """In their order; neighbours of one coding as one, since a phone may have cut a surrogate or escape pair."""
    texts: list[str] = []
    coding, raw = 0, b""
    for _, part in sorted(parts.items()):
        if part.coding != coding:
            texts.append(decode(coding, raw))
            coding, raw = part.coding, b""
        raw += part.raw
    return "".join([*texts, decode(coding, raw)])
