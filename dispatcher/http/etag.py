"""Entity tags of versioned documents (RFC 9110 sections 8.8.3 and 13.1)."""

import re
from typing import Final

from aiohttp import web

from dispatcher.http.problem import Problem

_TAG: Final = re.compile(r'\s*"(\d{1,18})"\s*')


def etag(version: int) -> str:
    """A version as an entity tag."""
    return f'"{version}"'


def guard_of(request: web.Request, current: int) -> int | None:
    """The version a change is for; None when the caller does not care. `current` is 0 for what does not exist.

    Raises Problem 412 for conditions that cannot hold.
    """
    if request.headers.get("If-None-Match", "").strip() == "*":
        if current:
            raise mismatch(current)
        return 0
    wanted = request.headers.get("If-Match")
    if wanted is None:
        return None
    if wanted.strip() == "*":
        if not current:
            raise mismatch(current)
        return current
    versions = [int(match.group(1)) for match in map(_TAG.fullmatch, wanted.split(",")) if match]
    if current not in versions or not current:
        raise mismatch(current)
    return current


def mismatch(current: int) -> Problem:
    """The 412 for a document that was changed meanwhile."""
    if not current:
        return Problem(412, "there is no such document")
    return Problem(412, f"the document is at version {current} now", headers={"ETag": etag(current)})
