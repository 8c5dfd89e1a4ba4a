"""What simulated providers received, exactly: every message, how often, and what was answered."""

from collections import Counter
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


class Journal:
    """The records of every provider, in memory; with a path, every reception is in that file before it is answered."""

    def __init__(self, path: Path | None = None) -> None:
        self._records: dict[str, dict[str, Record]] = {}
        self._answers: dict[str, Counter[str]] = {}
        self._requests: Counter[str] = Counter()
        self._accepted: Counter[str] = Counter()
        self._path = path
        self._file: BufferedIOBase | None = None
        if path is not None:
            self._load(path)
            self._file = path.open("ab", buffering=0)  # type: ignore[assignment]

    def add(self, provider: str, at_s: float, messages: Sequence[Received], answers: Sequence[str] | str) -> None:
        """One request's messages, with an answer for each or one for all."""
        self._requests[provider] += 1
        given = [answers] * len(messages) if isinstance(answers, str) else answers
        self._remember(provider, at_s, messages, given)
        if self._file is not None:
            lines = [Line(provider, at_s, message, answer) for message, answer in zip(messages, given, strict=True)]
            self._file.write(_encoder.encode_lines(lines))

    def _remember(self, provider: str, at_s: float, messages: Sequence[Received], answers: Sequence[str]) -> None:
        records = self._records.setdefault(provider, {})
        self._answers.setdefault(provider, Counter()).update(answers)
        newly_accepted = 0
        for m, answer in zip(messages, answers, strict=True):
            record = records.get(m.id)
            if record is None:
                taken = 1 if answer == "accepted" else 0
                newly_accepted += taken
                records[m.id] = Record(
                    provider, m.id, at_s, m.to, m.channel, m.type, m.line, m.template, 1, answer, taken
                )
            else:
                record.times += 1
                record.answer = answer
                if answer == "accepted":
                    newly_accepted += record.accepted == 0
                    record.accepted += 1
        self._accepted[provider] += newly_accepted

    def _load(self, path: Path) -> None:
        if not path.exists():
            return
        whole = 0
        with path.open("rb") as file:
            for raw in file:
                if not raw.endswith(b"\n"):
                    break  # cut off by a kill: that reception was never answered
                line = _decode_line(raw)
                self._remember(line.provider, line.at_s, [line.message], [line.answer])
                whole += len(raw)
        with path.open("r+b") as file:
            file.truncate(whole)

    def forget(self) -> None:
        """Empties the journal and its file."""
        self._records.clear()
        self._answers.clear()
        self._requests.clear()
        self._accepted.clear()
        if self._file is not None:
            self._file.truncate(0)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def chunks(self, provider: str | None = None, accepted: bool = False) -> Iterator[bytes]:
        """NDJSON of the records known now, a thousand lines a chunk; `accepted` leaves out what never was."""
        chosen = self._records if provider is None else {provider: self._records.get(provider, {})}
        found = [record for records in chosen.values() for record in records.values()]
        for start in range(0, len(found), _SLICE):
            part = found[start : start + _SLICE]
            if accepted:
                part = [record for record in part if record.accepted]
            if part:
                yield _encoder.encode_lines(part)

    def receptions(self, provider: str) -> int:
        """How many messages came, repeated ones included."""
        return self._answers.get(provider, Counter()).total()

    def stats(self, provider: str) -> dict[str, Any]:
        """Counts of one provider: receptions, distinct messages, and what was answered."""
        records = self._records.get(provider, {})
        answers = self._answers.get(provider, Counter())
        accepted = self._accepted[provider]
        return {
            "requests": self._requests[provider],
            "messages": answers.total(),
            "distinct": len(records),
            "accepted": accepted,
            "duplicates": answers["accepted"] - accepted,
            "answers": dict(answers),
        }
