"""Which text of a JSON or msgpack document is not UTF-8. Pure.

The decoder's own error knows the text but not where it stands, and counts bytes from the beginning of that text.
"""

from collections.abc import Callable
from typing import Any, Final

import msgspec
from msgspec import Raw

MOST_LEVELS: Final = 8  # each level below reads its part of the document again

Decode = Callable[..., Any]


def not_utf8(data: bytes, msgpack: bool = False) -> tuple[str, str] | None:
    """`(path, what)` of the first text that is not UTF-8; the path is empty for the whole document. None when no text
    is wrong, or the document cannot be read for another reason."""
    return _fault(data, msgspec.msgpack.decode if msgpack else msgspec.json.decode, "", MOST_LEVELS)


def said(error: UnicodeDecodeError) -> str:
    """What is wrong with the text that the error is about."""
    return f"not UTF-8 ({error.reason} at byte {error.start} of it)"


def _fault(data: bytes | Raw, decode: Decode, path: str, levels: int) -> tuple[str, str] | None:
    try:
        decode(data)
    except UnicodeDecodeError as error:
        try:
            return _inside(data, decode, path, levels) or (path, said(error))
        except UnicodeDecodeError as name:
            return path, f"a name in it is {said(name)}"
    except (msgspec.MsgspecError, RecursionError):
        return None
    return None


def _inside(data: bytes | Raw, decode: Decode, path: str, levels: int) -> tuple[str, str] | None:
    """The first fault of a member, None for what has no members. Raises UnicodeDecodeError for a member's name."""
    if levels == 0:
        return None
    for name, member in _members(data, decode):
        at = f"[{name}]" if isinstance(name, int) else f".{name}"
        if (fault := _fault(member, decode, (path + at).removeprefix("."), levels - 1)) is not None:
            return fault
    return None


def _members(data: bytes | Raw, decode: Decode) -> list[tuple[str | int, Raw]]:
    for type_ in (dict[str, Raw], list[Raw]):
        try:
            found = decode(data, type=type_)
        except msgspec.ValidationError:
            continue
        return list(found.items() if isinstance(found, dict) else enumerate(found))
    return []
