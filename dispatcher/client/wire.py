"""HTTP as the client speaks it: every failure is one of `errors`."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
import msgspec

from dispatcher.client.answers import AnswerLine
from dispatcher.client.errors import BadAnswer, Cut, Problem, Unavailable

OK: Final = 200
FIRST_ERROR: Final = 300
TOO_MANY: Final = 429
SERVER_ERRORS: Final = range(500, 600)
#: A result line is well below this; more without a line feed is no NDJSON.
MAX_ANSWER_LINE_BYTES: Final = 1024 * 1024

_answer_lines: Final = msgspec.json.Decoder(AnswerLine).decode_lines


@contextmanager
def broken_connections() -> Iterator[None]:
    """Turns what aiohttp says about a connection into Cut, or BadAnswer when it was no HTTP."""
    try:
        yield
    except aiohttp.ClientResponseError as error:  # the head could not be parsed
        raise BadAnswer(f"not an HTTP answer: {error.message}") from error
    except TimeoutError as error:
        raise Cut(f"timed out {error}".strip()) from error
    except aiohttp.InvalidURL:
        raise
    except (aiohttp.ClientError, OSError) as error:
        raise Cut(f"{type(error).__name__}: {error}") from error


async def refusal(response: aiohttp.ClientResponse) -> Problem | Unavailable:
    """What an answer other than 2xx means."""
    with broken_connections():
        body = await response.content.read(64 * 1024)
    problem = _problem(response.status, body)
    if response.status == TOO_MANY or response.status in SERVER_ERRORS:
        why = problem.detail or problem.title
        return Unavailable(response.status, why, retry_after_s(response.headers.get("Retry-After"), response.headers))
    return problem


def _problem(status: int, body: bytes) -> Problem:
    try:
        document = msgspec.json.decode(body, type=dict[str, Any])
    except msgspec.DecodeError:
        return Problem(status, body[:200].decode(errors="replace"))
    errors = document.get("errors")
    return Problem(
        status,
        str(document.get("title", "")),
        str(document.get("detail") or ""),
        [e for e in errors if isinstance(e, dict)] if isinstance(errors, list) else None,
    )


def url_fault(url: str) -> str | None:
    """What is wrong with the address of a dispatcher; None when nothing is."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        return f"is no address ({error})"
    if parts.scheme not in ("http", "https"):
        return "does not begin with http:// or https://"
    if not host:
        return "names no host"
    return "carries a query or a fragment" if parts.query or parts.fragment else None


def retry_after_s(value: str | None, headers: Any) -> float | None:
    """Seconds of a Retry-After header: a number, or an HTTP date (RFC 9110 section 10.2.3) counted from `Date`."""
    if value is None:
        return None
    if value.strip().replace(".", "", 1).isdigit():
        return float(value)
    try:
        return max(0.0, (_http_date(value) - _http_date(headers.get("Date", ""))).total_seconds())
    except ValueError:
        return None


def _http_date(text: str) -> datetime:
    return parsedate_to_datetime(text).astimezone(UTC)


def split_answers(data: bytes) -> tuple[list[AnswerLine], bytes]:
    """The whole lines at the front of `data`, and the rest."""
    end = data.rfind(b"\n") + 1
    if len(data) - end > MAX_ANSWER_LINE_BYTES:
        raise BadAnswer("an answer without line breaks; expected NDJSON")
    if not end:
        return [], data
    try:
        return _answer_lines(data[:end]), data[end:]
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadAnswer(f"an answer that is no NDJSON of results ({error}): {data[:80]!r}") from error


def read_json(body: bytes) -> Any:
    """The document in an answer; None when it is empty."""
    try:
        return msgspec.json.decode(body) if body.strip() else None
    except msgspec.DecodeError as error:
        raise BadAnswer(f"not a JSON answer: {error}") from error


def read_line(line: bytes) -> dict[str, Any]:
    """One line of a bulk answer."""
    try:
        return msgspec.json.decode(line, type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise BadAnswer(f"not an NDJSON answer: {line[:80]!r}") from error


def read_bulk(body: bytes) -> list[dict[str, Any]]:
    """The error lines of a bulk answer, which ends with its summary."""
    try:
        lines = msgspec.json.Decoder(dict[str, Any]).decode_lines(body)
    except msgspec.DecodeError as error:
        raise BadAnswer(f"not an NDJSON answer: {error}") from error
    if not lines or "summary" not in lines[-1]:
        raise BadAnswer("a bulk answer without a summary")
    return lines[:-1]
