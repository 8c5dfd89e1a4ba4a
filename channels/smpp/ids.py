"""Which message of ours a centre's receipt is about. Pure; memory is bounded.

A centre may answer a submit_sm in hexadecimal and write its receipts in decimal, or the other way (SMPP leaves the
form open). Which way one does is learnt from its first receipts: an id in another form must belong to a message to
the same number, since most numbers can be read both ways.
"""

from collections.abc import Iterable
from typing import Final, Literal

from msgspec import Struct

#: Of messages of several parts and of late answers; and of all until the form is known.
MOST: Final = 20_000
#: Ids are C-octet strings of at most 64 characters.
LONGEST_ID: Final = 64
#: Country codes and trunk zeros differ in how a number is written, its end does not.
_TAIL: Final = 8

Form = Literal["same", "decimal", "hexadecimal"]


class Sent(Struct, frozen=True):
    """A part that the centre has. `last`: of its message."""

    message: str
    tail: str
    last: bool


class Ids:
    """What was submitted lately, by the centre's id."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._sent: dict[str, Sent] = {}
        self.form: Form | None = None  # of receipts' ids, against those of responses

    def __len__(self) -> int:
        return len(self._sent)

    def remember(self, id_: str, message: str, to: str, last: bool = True) -> None:
        """The centre has taken a part under this id."""
        self._sent.pop(normal(id_), None)
        if len(self._sent) >= self._most:
            del self._sent[next(iter(self._sent))]
        self._sent[normal(id_)] = Sent(message, tail(to), last)

    def find(self, id_: str, numbers: Iterable[str]) -> tuple[str, Sent | None]:
        """`(the id in the form of responses, what was sent under it)`. `numbers`: the receipt's addresses, as some
        centres put the recipient where the sender belongs."""
        tails = {tail(number) for number in numbers} - {""}
        if self.form is not None:
            found = _in_form(id_, self.form)
            sent = self._sent.get(found)
            return found, sent if sent is not None and sent.tail in tails else None
        for form in _FORMS:
            found = _in_form(id_, form)
            sent = self._sent.get(found)
            if sent is not None and sent.tail in tails:
                if form != "same" or len({_in_form(id_, one) for one in _FORMS}) > 1:
                    self.form = form
                return found, sent
        return normal(id_), None


_FORMS: Final[tuple[Form, ...]] = ("same", "decimal", "hexadecimal")


def normal(id_: str) -> str:
    """Ids are compared without leading zeros, and in lower case."""
    return id_[:LONGEST_ID].strip().casefold().lstrip("0") or "0"


def tail(number: str) -> str:
    """The last digits of a phone number."""
    return "".join([c for c in number if c in "0123456789"])[-_TAIL:]


def _in_form(id_: str, form: Form) -> str:
    """The id as responses write it, when receipts write it in `form`."""
    plain = normal(id_)
    if form == "decimal" and plain.isascii() and plain.isdecimal():
        return f"{int(plain):x}"
    if form == "hexadecimal" and plain.isascii() and plain.isalnum():
        try:
            return str(int(plain, 16))
        except ValueError:
            return plain
    return plain
