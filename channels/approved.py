"""Vendors that take no text, but the code of a template they approved and its parameters."""

from collections.abc import Callable, Container, Hashable, Iterable, Sequence
from typing import Final

from msgspec import Struct

from channels.adapter import Unsendable
from dispatcher.message import Message

#: So many messages are remembered as going alone.
_MOST_APART: Final = 4096
MAINLAND: Final = "+86"


class Approved(Struct, frozen=True, gc=False):
    """A message as such a vendor takes it; `names` and `values` of its parameters in the template's order."""

    code: str
    names: tuple[str, ...]
    values: tuple[str, ...]
    signature: str


def approved(message: Message, kind: str, signature: str | None) -> Approved:
    """The template of `kind` with the message's parameters; `signature` stands in where the template has none.

    Raises Unsendable (`rejected`): `no_template` when no template of that vendor is known, `no_param` when a parameter
    it wants was not given.
    """
    known = message.vendor.get(kind) if message.vendor is not None else None
    if known is None:
        raise Unsendable("rejected", "no_template")
    code, names = known
    try:
        values = tuple([message.params[name] for name in names])
    except KeyError as missing:
        raise Unsendable("rejected", f"no_param: {missing.args[0]}") from None
    return Approved(code, tuple(names), values, message.fields.get("signature") or signature or "")


class Apart:
    """Messages that go alone, since a batch with them was refused for what one of them may be to blame for.

    The oldest are forgotten: they would only cost a batch once more.
    """

    def __init__(self) -> None:
        self._ids: dict[str, None] = {}

    def __contains__(self, id_: object) -> bool:
        return id_ in self._ids

    def add(self, ids: Iterable[str]) -> None:
        self._ids.update(dict.fromkeys(ids))
        for id_ in list(self._ids)[: max(0, len(self._ids) - _MOST_APART)]:
            del self._ids[id_]


class _Part:
    def __init__(self, place: int, number: str, size: int) -> None:
        self.places = [place]
        self.numbers = {number}
        self.size = size


def parts_of(
    messages: Sequence[Message],
    key: Callable[[Message], Hashable],
    most: int,
    apart: Container[str] = (),
    size: Callable[[Message], int] | None = None,
    most_size: int = 0,
) -> list[list[int]]:
    """The places of messages that may share a request: those of equal `key`, at most `most`, no number twice, since
    such vendors tell the messages of a request apart by it, and together at most `most_size`.

    Alone go those for which `key` raises Unsendable, and those `apart`.
    """
    done: list[list[int]] = []
    open_: dict[Hashable, _Part] = {}
    for place, message in enumerate(messages):
        try:
            shared = key(message)
            bytes_ = size(message) if size is not None else 0
        except Unsendable:
            done.append([place])
            continue
        part, number = open_.get(shared), national(message.to)
        if message.id in apart:
            done.append([place])
        elif part is None or len(part.places) == most or number in part.numbers or part.size + bytes_ > most_size:
            open_[shared] = part = _Part(place, number, bytes_)
            done.append(part.places)
        else:
            part.places.append(place)
            part.numbers.add(number)
            part.size += bytes_
    return done


def national(to: str) -> str:
    """A number in the form in which all of a mainland vendor's spellings of it are equal: digits, without China's 86.

    A number of another country may come to equal one of China's: see `parts_of`.
    """
    digits = to.strip().removeprefix("+").removeprefix("00")
    return digits[2:] if len(digits) == 13 and digits.startswith("861") else digits


def international(number: str | None) -> str | None:
    """The `+` form of a number as a vendor writes it: eleven digits from 1 on, without `+` or `00`, are China's."""
    text = (number or "").strip()
    digits = text.removeprefix("+").removeprefix("00")
    if not (digits.isascii() and digits.isdigit()) or len(digits) > 15:
        return None
    return f"+86{digits}" if digits == text and len(digits) == 11 and digits.startswith("1") else f"+{digits}"
