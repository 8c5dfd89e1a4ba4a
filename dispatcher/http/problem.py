"""Problem documents (RFC 9457): every answer that is an error, whoever made it."""

import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from http import HTTPStatus
from typing import Any, Final

import msgspec
from aiohttp import web
from msgspec import Struct

from dispatcher.http.ports import Unavailable
from dispatcher.intake import fault_of

PROBLEM_TYPE: Final = "application/problem+json"
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_log = logging.getLogger(__name__)


class FieldError(Struct, frozen=True):
    """What is wrong, and where."""

    path: str
    message: str


class ProblemDocument(Struct, frozen=True):
    """The body of every answer that is an error."""

    title: str
    status: int
    detail: str
    type: str = "about:blank"
    errors: list[FieldError] = []


class Problem(Exception):
    """An answer that is an error. Raised by handlers, written by the middleware."""

    def __init__(
        self,
        status: int,
        detail: str,
        errors: Iterable[tuple[str, str]] = (),
        headers: Mapping[str, str] | None = None,
        close: bool = False,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.errors = [FieldError(path, message) for path, message in errors]
        self.headers = dict(headers or {})
        self.close = close


def unprocessable(errors: Iterable[tuple[str, str]]) -> Problem:
    """A 422 for a document that can be read but cannot be."""
    return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "the document has errors", errors)


def undecodable(error: Exception, body: bytes) -> Problem:
    """422 with the path for JSON of the wrong shape, 400 for what is no JSON."""
    path, what = fault_of(error, body)
    if isinstance(error, msgspec.ValidationError):
        return unprocessable([(path, what)])
    return Problem(HTTPStatus.BAD_REQUEST, "the body cannot be read", [(path or "body", what)])


def unavailable(error: Unavailable, close: bool = False) -> Problem:
    """A 503 that says when to come again."""
    return Problem(503, error.reason, headers={"Retry-After": retry_after(error.retry_after_s)}, close=close)


def retry_after(seconds: float) -> str:
    """The header's value: whole seconds, at least one (RFC 9110 section 10.2.3)."""
    return str(max(1, -(-int(seconds * 1000) // 1000)))


def response_of(problem: Problem) -> web.Response:
    """The problem as aiohttp sends it."""
    title = HTTPStatus(problem.status).phrase
    document = ProblemDocument(title, problem.status, problem.detail, errors=problem.errors)
    body = msgspec.json.encode(document)
    response = web.Response(status=problem.status, body=body, headers=problem.headers, content_type=PROBLEM_TYPE)
    if problem.close:
        response.force_close()
    return response


def _of_aiohttp(error: web.HTTPException) -> Problem:
    headers = {name: error.headers[name] for name in ("Allow", "Retry-After") if name in error.headers}
    details: dict[int, str] = {
        404: "there is nothing at this path",
        405: f"this path takes {error.headers.get('Allow', 'other methods')}",
        413: "the body is too large",
    }
    return Problem(error.status, details.get(error.status, error.reason), headers=headers)


@web.middleware
async def problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every error leaves as a problem document; what went wrong inside stays inside."""
    try:
        return await handler(request)
    except Problem as problem:
        return response_of(problem)
    except Unavailable as error:
        return response_of(unavailable(error))
    except web.HTTPException as error:
        if error.status < 400:
            raise
        return response_of(_of_aiohttp(error))
    except ConnectionError:
        raise  # the caller has gone: there is nobody to answer
    except web.RequestPayloadError as error:
        return response_of(Problem(400, "the body was cut off or is not encoded as it says", [("body", str(error))]))
    except Exception:
        _log.exception("http: %s %s failed", request.method, request.path)
        return response_of(Problem(500, "an error inside the dispatcher; its log says more"))


async def read_body(request: web.Request, limit_bytes: int) -> bytes:
    """The whole body; 413 as soon as it is longer than the limit."""
    if (request.content_length or 0) > limit_bytes:
        raise Problem(413, f"the body is larger than {limit_bytes} bytes", close=True)
    parts: list[bytes] = []
    size_bytes = 0
    async for part in request.content.iter_any():
        size_bytes += len(part)
        if size_bytes > limit_bytes:
            raise Problem(413, f"the body is larger than {limit_bytes} bytes", close=True)
        parts.append(part)
    return b"".join(parts)


def json_response(document: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """A JSON answer; `document` may be encoded already."""
    body = document if isinstance(document, bytes) else msgspec.json.encode(document)
    return web.Response(status=status, body=body, headers=headers, content_type="application/json")
