"""What an HTTP status means when the provider's own protocol says nothing else.

Source: design page `wire.md`, section 0, "Default rules". `Retry-After`: RFC 9110, section 10.2.3.
"""

import math
from collections.abc import Mapping, Sequence
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final

from msgspec import Struct

from channels.adapter import NotWritten, Written
from dispatcher.message import Message
from dispatcher.receipt import Answer, Receipt

#: A provider that asks for a longer pause is heard again after this long.
LONGEST_RETRY_AFTER_S: Final = 86_400.0
#: A provider's words longer than this are cut: they travel with every receipt.
LONGEST_WORD: Final = 256

_BY_STATUS: Final[dict[int, Answer]] = {
    401: "auth",
    403: "auth",
    408: "transient",
    425: "transient",
    429: "throttled",
    500: "transient",
    502: "transient",
    503: "transient",
    504: "unknown",
}


class Verdict(Struct, frozen=True, gc=False):
    """The answer to a whole request, before it is told to each of its messages."""

    answer: Answer
    code: str | None = None
    retry_after_s: float | None = None
    narrow: bool = False

    def receipt(self, id_: str, provider: str) -> Receipt:
        """Told to one message."""
        return Receipt(id_, self.answer, provider, None, self.code, self.retry_after_s, narrow=self.narrow)

    def receipts(self, messages: Sequence[Message], provider: str) -> list[Receipt]:
        """The same answer for every message, in order."""
        return [self.receipt(message.id, provider) for message in messages]


def by_code(groups: Mapping[Answer, str]) -> dict[str, Answer]:
    """A vendor's codes and what each of them means, from the codes of each answer, separated by spaces."""
    return {code: answer for answer, codes in groups.items() for code in codes.split()}


def receipt_of_status(status: int, headers: Mapping[str, str], body: bytes, now_s: float) -> Verdict:
    """The default verdict on a reply whose body says nothing the adapter knows. `headers` are in lower case.

    2xx is `rejected`: the provider answered in words nobody knows. 3xx is `transient`: redirects are not followed, so
    the message surely was not taken here. Any status outside the table and below 400 or above 499 is `unknown`.
    """
    code = f"http {status}"
    retry_after_s = parse_retry_after(headers.get("retry-after"), now_s)
    answer = _BY_STATUS.get(status) or _answer_of_class(status)
    if status == 503 and retry_after_s is not None:
        answer = "throttled"
    return Verdict(answer, code, retry_after_s if answer in ("throttled", "transient") else None)


def _answer_of_class(status: int) -> Answer:
    match status // 100:
        case 2 | 4:
            return "rejected"
        case 3:
            return "transient"
    return "unknown"


def verdict_of_failure(failure: NotWritten | Written) -> Verdict:
    """No reply came: `transient` when nothing was written, `unknown` when something may have been."""
    why = str(failure)[:LONGEST_WORD] or type(failure).__name__
    return Verdict("transient" if isinstance(failure, NotWritten) else "unknown", why)


def parse_retry_after(value: str | None, now_s: float) -> float | None:
    """Seconds from now, from a number of seconds or an HTTP-date; None when absent or unreadable, never negative."""
    if not value:
        return None
    try:
        return bounded_retry_after_s(float(value))
    except ValueError:
        pass
    try:
        at = parsedate_to_datetime(value)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    if at.tzinfo is None:  # HTTP-dates are in GMT; `-0000` and a missing zone parse as naive
        at = at.replace(tzinfo=UTC)
    return bounded_retry_after_s(at.timestamp() - now_s)


def bounded_retry_after_s(seconds: float) -> float | None:
    """A wait that can be acted on: within 0 and a day, None for what is no number."""
    if math.isnan(seconds):
        return None
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER_S)
