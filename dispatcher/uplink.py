"""What a user's own message asks for: no more marketing, or the service of a line. Pure.

An unsubscribe word is the whole text. A keyword is how the text begins; of several that fit the longest counts. Both
are compared without regard to case, to full and half width, and to white space around them.
"""

from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import Final
from unicodedata import normalize

import msgspec
from msgspec import Struct

from dispatcher.address import normalise
from dispatcher.documents import BlacklistEntry, Line, Provider, SmsContent, Template, TypeName, UnsubscribeAnswer
from dispatcher.report import Uplink
from dispatcher.template import placeholders
from dispatcher.trigger import Order

UNSUBSCRIBE_WORDS: Final = ("TD", "T", "N", "R", "退订", "STOP", "UNSUBSCRIBE")
#: What nobody is sent any more who has unsubscribed.
UNWANTED: Final[tuple[TypeName, ...]] = ("marketing", "notice_marketing")
#: A line's webhook is asked again after a second, and then after twice as long each time, up to five minutes.
FIRST_WAIT_S: Final = 1.0
LONGEST_WAIT_S: Final = 300.0
_MOST_DOUBLINGS: Final = 16


class Forward(Struct, frozen=True, array_like=True, gc=False):
    """An uplink on its way to a line's webhook. `id` stays the same however often it is tried; `taken_ms`: epoch
    milliseconds."""

    id: str
    line: str
    keyword: str
    taken_ms: int
    uplink: Uplink


def folded(text: str) -> str:
    """The text as words are compared."""
    return normalize("NFKC", text).casefold().strip()


def unsubscribes(text: str, words: Iterable[str]) -> bool:
    """Whether this is one of the words, and nothing else."""
    said = folded(text)
    return said != "" and any(said == folded(word) for word in words)


def unsubscription(uplink: Uplink, region: str) -> list[BlacklistEntry]:
    """What the sender is to be spared, on that channel and from every line; nothing where the sender is no address."""
    address = normalise(uplink.channel, uplink.sender, region)
    if address is None:
        return []
    why = f"unsubscribed at {uplink.provider}: {folded(uplink.text)}"[:512]
    entry = msgspec.convert({"address": address, "channel": uplink.channel, "why": why}, BlacklistEntry)
    return [msgspec.structs.replace(entry, type=type_) for type_ in UNWANTED]


def answer_order(uplink: Uplink, answer: UnsubscribeAnswer, region: str) -> Order | None:
    """The text back to a number that unsubscribed; None where the sender is no address.

    Its id is the same for all that the number says to this provider, so within the idempotency window the number gets
    one: a repeated uplink brings no second, and a machine that texts back to our answers starts no endless talk.
    """
    address = normalise(uplink.channel, uplink.sender, region)
    if address is None:
        return None
    id_ = f"unsubscribed:{uplink.provider}"[:128]
    to, channels = {uplink.channel: address}, [uplink.channel]
    return Order(id_, address, None, answer.line, answer.template, {}, to, channels)


def answer_faults(provider: Provider, templates: Mapping[str, Template]) -> list[tuple[str, str]]:
    """`(path, message)` of what keeps a provider's `unsubscribe_answer` from being sent; a template that does not exist
    is told elsewhere."""
    answer = provider.unsubscribe_answer
    if answer is None:
        return []
    if provider.channel != "sms":
        return [("unsubscribe_answer", "only a provider of channel `sms` texts back")]
    template = templates.get(answer.template)
    if template is None:
        return []
    errors = [("unsubscribe_answer.template", f"{answer.template!r} {fault}") for fault in _unfit(template)]
    if template.line not in (None, answer.line):
        errors.append(("unsubscribe_answer.line", f"{answer.template!r} is for the line {template.line!r} only"))
    return errors


def _unfit(template: Template) -> list[str]:
    """Why a template cannot be texted to a number that just unsubscribed."""
    faults = []
    if template.type != "notice":
        faults.append(f"is of type `{template.type}`: a `notice` still reaches who unsubscribed")
    if template.status != "active":
        faults.append(f"is {template.status}")
    content = next((content for content in template.channels if isinstance(content, SmsContent)), None)
    if content is None:
        return [*faults, "has nothing for channel `sms`"]
    wanted = [name for text in (content.text, content.signature or "") for name in placeholders(text)]
    wanted += [name for known in template.vendor.values() for name in known.params]
    if wanted:
        faults.append(f"wants the parameter {wanted[0]!r}, and there are none")
    return faults


def owner_of(text: str, lines: Mapping[str, Line]) -> tuple[str, str] | None:
    """The line whose keyword the text begins with, and that keyword."""
    said = folded(text)
    found = [
        (len(word), id_, keyword)
        for id_, line in lines.items()
        if line.uplinks is not None
        for keyword in line.uplinks.keywords
        if (word := folded(keyword)) and said.startswith(word)
    ]
    if not found:
        return None
    _, id_, keyword = min(found, key=lambda one: (-one[0], one[1]))
    return id_, keyword


def keyword_faults(id_: str, line: Line, others: Mapping[str, Line]) -> list[tuple[str, str]]:
    """`(path, message)` of each keyword that says nothing, or is another line's; a keyword has one owner."""
    if line.uplinks is None:
        return []
    owners = {
        folded(keyword): other
        for other, document in others.items()
        if other != id_ and document.uplinks is not None
        for keyword in document.uplinks.keywords
    }
    errors, mine = [], set()
    for i, keyword in enumerate(line.uplinks.keywords):
        word, path = folded(keyword), f"uplinks.keywords[{i}]"
        owner = owners.get(word)
        if not word:
            errors.append((path, "must not be blank"))
        elif owner is not None:
            name = others[owner].name
            errors.append((path, f"belongs to the line {owner!r}" + (f" ({name})" if name and name != owner else "")))
        elif word in mine:
            errors.append((path, "is listed twice"))
        mine.add(word)
    return errors


def identity(uplink: Uplink) -> str | None:
    """The same for repeated deliveries of one uplink, different for different ones. None: the vendor says neither a
    key nor a time, so the same words again may well be meant again."""
    if not uplink.key and not uplink.at_ms:
        return None
    said = (uplink.key,) if uplink.key else (uplink.sender, uplink.to, uplink.text, uplink.at_ms)
    return blake2b(msgspec.json.encode((uplink.provider, said)), digest_size=12).hexdigest()


def wait_ms(failures: int) -> int:
    """How long a webhook is left alone that has failed so many times running."""
    if failures <= 0:
        return 0
    return round(1000 * min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0 ** min(failures - 1, _MOST_DOUBLINGS)))
