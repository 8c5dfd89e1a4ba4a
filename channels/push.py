"""What the push kinds share: which messages one request carries, what an app learns of one, how a vendor's words are
read.

What an app gets beside title and body, under the same names from every vendor: `message`, our message id, where a
request carries one message; `jump_kind` (`h5`, `native`) and `jump_url`, where the template says where a tap leads.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

from channels.adapter import Reply
from channels.answers import LONGEST_WORD, Verdict, receipt_of_status
from channels.loose import json_of, word
from dispatcher.ident import place_of
from dispatcher.kinds import BULK
from dispatcher.message import Message
from dispatcher.receipt import Answer
from dispatcher.report import Report, ReportStatus

_MINUTE_MS: Final = 60_000


def alike(messages: Sequence[Message], most: int, alone: Callable[[str], bool] = lambda _: False) -> list[list[int]]:
    """The places of messages that differ in their address only, at most `most` together and no address twice.

    Messages that expire within the same minute go together, and live as long as the first of them. `alone`: addresses
    that would have a vendor refuse the whole request.
    """
    parts: list[list[int]] = []
    open_: dict[tuple[Any, ...], tuple[list[int], set[str]]] = {}
    for place, message in enumerate(messages):
        if alone(message.to):
            parts.append([place])
            continue
        key = _content(message)
        part = open_.get(key)
        if part is None or len(part[0]) == most or message.to in part[1]:
            part = open_[key] = ([], set())
            parts.append(part[0])
        part[0].append(place)
        part[1].add(message.to)
    return parts


def _content(message: Message) -> tuple[Any, ...]:
    fields = message.fields
    kind, url = jump_of(message)
    return fields["title"], fields["body"], kind, url, message.lane == BULK, message.expires_ms // _MINUTE_MS


def jump_of(message: Message) -> tuple[str, str]:
    """`(kind, url)` of where a tap leads; both empty when nowhere in particular."""
    jump = message.fields.get("jump")
    return (jump["kind"], jump["url"]) if jump else ("", "")


def extras(messages: Sequence[Message]) -> dict[str, str]:
    """What the app gets beside title and body."""
    kind, url = jump_of(messages[0])
    named = {"message": messages[0].id} if len(messages) == 1 else {}
    return {**named, "jump_kind": kind, "jump_url": url} if url else named


def tag_of(messages: Sequence[Message]) -> str:
    """26 characters that are the same for the same messages: of one message its id."""
    if len(messages) == 1:
        return messages[0].id
    return "b" + hashlib.sha256("\n".join([message.id for message in messages]).encode()).hexdigest()[:25]


def number_of(tag: str) -> int:
    """31 bits of a tag: a notification replaces one with the same number, so a repeated one is not seen twice."""
    return int.from_bytes(hashlib.sha256(tag.encode()).digest()[:4], "big") >> 1


def life_s(messages: Sequence[Message], now_s: float, longest_s: int) -> int:
    """How long the vendor may keep trying: until the first of them expires, whole seconds."""
    left_s = int(min(message.expires_ms for message in messages) / 1000 - now_s)
    return min(max(left_s, 1), longest_s)


def find_of(ref: str, address: str) -> str:
    """`Receipt.find` where a vendor's report names its own reference and the address (addresses are long)."""
    return f"{ref}|{hashlib.sha256(address.encode()).hexdigest()[:16]}"


def report(
    provider: str, said: tuple[ReportStatus, bool], id_: object, ref: str, address: str, code: str, at: object
) -> Report:
    """`said`: the status, and whether the address will never work. `id_`: ours, where the vendor gave it back; else the
    report is about what the receipt named. `at`: epoch milliseconds in whatever form."""
    status, dead = said
    ours = id_ if isinstance(id_, str) and place_of(id_) is not None else None
    find = find_of(ref, address) if ours is None else None
    kept = None if status == "delivered" else code or None
    return Report(provider, status, ours, find, address or None, kept, milliseconds(at), dead=dead)


def intent_of(url: str) -> str:
    """A native address as an Android intent URI (android.content.Intent.toUri): `app://a/b` is
    `intent://a/b#Intent;scheme=app;end`."""
    scheme, colon, rest = url.partition(":")
    if scheme == "intent" or not colon or not urlsplit(url).scheme:
        return url
    return f"intent:{rest}#Intent;scheme={scheme};end"


# -- a vendor's words


def document(body: bytes) -> dict[str, Any]:
    """A JSON object; empty when it is none."""
    found = json_of(body)
    return found if isinstance(found, dict) else {}


def inner(found: Any, *names: str) -> dict[str, Any]:
    """The object below these names; empty when there is none."""
    for name in names:
        found = found.get(name) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else {}


def text_of(value: object) -> str:
    """A word or a number as a word, cut; empty for anything else."""
    return word(value, LONGEST_WORD) or ""


def verdict_of(reply: Reply, code: str, answers: Mapping[str, Answer], now_s: float) -> Verdict:
    """What the vendor's code for a request that it did not take means; a code nobody knows goes by the status."""
    default = receipt_of_status(reply.status, reply.headers, reply.body, now_s)
    if not code:  # a 2xx that cannot be read may have been a yes
        return Verdict("unknown", "unreadable reply") if 200 <= reply.status < 300 else default
    answer = answers.get(code, default.answer)
    return Verdict(answer, code, default.retry_after_s if answer in ("throttled", "transient") else None)


def milliseconds(value: object) -> int:
    """A time as vendors write it: epoch milliseconds, a number or a text; 0 when it is none."""
    text = text_of(value)
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 14 else 0
