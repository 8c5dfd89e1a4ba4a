"""What can go wrong between a caller and the dispatcher."""

from typing import Any


class ClientError(Exception):
    """Root of every error of the client."""


class Problem(ClientError):
    """The dispatcher refused the request (RFC 9457); sending the same again would be refused again."""

    def __init__(self, status: int, title: str, detail: str = "", errors: list[dict[str, Any]] | None = None) -> None:
        self.status = status
        self.title = title
        self.detail = detail
        self.errors = errors or []
        places = "; ".join(f"{e.get('path', '')}: {e.get('message', '')}" for e in self.errors)
        super().__init__(": ".join(part for part in (f"{status} {title}", detail, places) if part))


class BadAnswer(ClientError):
    """What answered does not speak the dispatcher's protocol; the address is likely not a dispatcher's."""


class GaveUp(ClientError):
    """Nothing moved for `patience_s`; `unanswered` triggers may or may not have been taken."""

    def __init__(self, unanswered: int, patience_s: float, cause: str) -> None:
        self.unanswered = unanswered
        self.patience_s = patience_s
        super().__init__(f"gave up after {patience_s:g} s without progress, {unanswered} unanswered: {cause}")


class Cut(ClientError):
    """A connection ended before its answer was complete. `stream`, `send` and the rest retry it."""


class Unavailable(ClientError):
    """The dispatcher asked to come back later (429 or 5xx). Retried."""

    def __init__(self, status: int, why: str, retry_after_s: float | None) -> None:
        self.status = status
        self.retry_after_s = retry_after_s
        super().__init__(f"{status} {why}".strip())
