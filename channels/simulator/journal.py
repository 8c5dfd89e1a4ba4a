"""What simulated providers received, exactly: every message, how often, and what was answered."""

from collections.abc import Iterator, Sequence
from io import BufferedIOBase
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct

_SLICE: Final = 1_000


class Received(Struct, gc=False):
    """A message as it arrives."""

    id: str
    to: str = ""
    channel: str = ""
    type: str = ""
    line: str = ""
    template: str = ""


class Record(Struct, gc=False):
    """All that is known of one message at one provider.

    `first_s`: epoch seconds; `times`: how often it came; `answer`: the last one given (`hang` and `error` included);
    `accepted`: how often it was accepted, so above 1 its user was messaged twice.
    """

    provider: str
    id: str
    first_s: float
    to: str
    channel: str
    type: str
    line: str
    template: str
    times: int
    answer: str
    accepted: int


class Line(Struct, gc=False, array_like=True):
    """One line of the journal file."""

    provider: str
    at_s: float
    message: Received
    answer: str


_encoder: Final = msgspec.json.Encoder()
_decode_line: Final = msgspec.json.Decoder(Line).decode


class _Book:
    """What one provider received."""

    __slots__ = ("accepted", "answers", "provider", "records", "requests")

    def __init__(self, provider: str) -> None:
        self.provider = provider
        self.records: dict[str, Record] = {}
        self.answers: dict[str, int] = {}
        self.requests = 0
        self.accepted = 0

    def add(self, at_s: float, messages: Sequence[Received], answer: str) -> None:
        """Messages that all got the same answer."""
        if not messages:
            return
        records, provider = self.records, self.provider
        self.answers[answer] = self.answers.get(answer, 0) + len(messages)
        taken = 1 if answer == "accepted" else 0
        newly_accepted = 0
        for m in messages:
            record = records.get(m.id)
            if record is None:
                newly_accepted += taken
                records[m.id] = Record(
                    provider, m.id, at_s, m.to, m.channel, m.type, m.line, m.template, 1, answer, taken
                )
            else:
                newly_accepted += taken and not record.accepted
                record.times += 1
                record.answer = answer
                record.accepted += taken
        self.accepted += newly_accepted


class Journal:
    """The records of every provider, in memory; with a path, every reception is in that file before it is answered."""

    def __init__(self, path: Path | None = None) -> None:
        self._books: dict[str, _Book] = {}
        self._file: BufferedIOBase | None = None
        if path is not None:
            self._load(path)
            self._file = path.open("ab", buffering=0)  # type: ignore[assignment]

    def _book(self, provider: str) -> _Book:
        found = self._books.get(provider)
        if found is None:
            found = self._books[provider] = _Book(provider)
        return found

    def add(self, provider: str, at_s: float, messages: Sequence[Received], answers: Sequence[str] | str) -> None:
        """One request's messages, with an answer for each or one for all."""
        book = self._book(provider)
        book.requests += 1
        if isinstance(answers, str):
            book.add(at_s, messages, answers)
        else:
            for message, answer in zip(messages, answers, strict=True):
                book.add(at_s, (message,), answer)
        if self._file is not None:
            given = [answers] * len(messages) if isinstance(answers, str) else answers
            lines = [Line(provider, at_s, message, answer) for message, answer in zip(messages, given, strict=True)]
            self._file.write(_encoder.encode_lines(lines))

    def _load(self, path: Path) -> None:
        if not path.exists():
            return
        whole = 0
        with path.open("rb") as file:
            for raw in file:
                if not raw.endswith(b"\n"):
                    break  # cut off by a kill: that reception was never answered
                line = _decode_line(raw)
                self._book(line.provider).add(line.at_s, (line.message,), line.answer)
                whole += len(raw)
        with path.open("r+b") as file:
            file.truncate(whole)

    def forget(self) -> None:
        """Empties the journal and its file."""
        self._books.clear()
        if self._file is not None:
            self._file.truncate(0)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def chunks(self, provider: str | None = None, accepted: bool = False) -> Iterator[bytes]:
        """NDJSON of the records known now, a thousand lines a chunk; `accepted` leaves out what never was."""
        chosen = [book for book in self._books.values() if provider in (None, book.provider)]
        found = [record for book in chosen for record in book.records.values()]
        for start in range(0, len(found), _SLICE):
            part = found[start : start + _SLICE]
            if accepted:
                part = [record for record in part if record.accepted]
            if part:
                yield _encoder.encode_lines(part)

    def receptions(self, provider: str) -> int:
        """How many messages came, repeated ones included."""
        book = self._books.get(provider)
        return sum(book.answers.values()) if book is not None else 0

    def stats(self, provider: str) -> dict[str, Any]:
        """Counts of one provider: receptions, distinct messages, and what was answered."""
        book = self._books.get(provider) or _Book(provider)
        return {
            "requests": book.requests,
            "messages": sum(book.answers.values()),
            "distinct": len(book.records),
            "accepted": book.accepted,
            "duplicates": book.answers.get("accepted", 0) - book.accepted,
            "answers": book.answers,
        }
