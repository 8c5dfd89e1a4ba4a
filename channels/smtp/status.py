"""What a mail server's reply means.

Source: design page `wire.md`, section 15; RFC 5321, 4.2; RFC 3463.
"""

import re
from typing import Final, Literal

from channels.answers import LONGEST_WORD, Verdict, by_code
from dispatcher.receipt import Answer

#: What was asked: a session (greeting, EHLO, TLS, AUTH), or the steps of one mail.
Step = Literal["session", "mail", "rcpt", "data"]

#: Reply code, with an enhanced status code or its first two parts after it where those matter; the longest that fits
#: counts. Of the others 4yz is `transient` and 5yz `rejected`.
REPLIES: Final = by_code({
    "invalid_recipient": "550-5.1.1 550-5.1.2 550-5.1.3 550-5.1.6 550-5.1.10 551 553",
    "throttled": "421 450-4.7 450-4.2.1 451-4.7.1 452-4.5.3",
    "auth": "530 534 535 538",
    "rejected": "550-5.7 551-5.7 553-5.7 552 554",
})
_ENHANCED: Final = re.compile(r"([245])\.(\d{1,3})\.(\d{1,3})(?!\S)")
_QUEUED: Final = re.compile(r"(?:\bqueued as |\bid=|^ok (?=[0-9a-f-]{16}))([\w.@+/-]{4,})", re.IGNORECASE)


def verdict(step: Step, code: int, text: str) -> Verdict | None:
    """None: the reply says nothing that could be understood, or yes.

    A session that is refused says nothing about a message: it is `auth` when it is for good. What is wrong with our own
    address is no fault of the recipient's. A recipient that must wait does not hold up others.
    """
    if not 400 <= code <= 599:
        return None
    found = _ENHANCED.match(text)
    enhanced = found.group() if found is not None else ""
    word = f"{code} {enhanced}".rstrip()
    answer = _answer(code, enhanced)
    if step == "session" and code >= 500:
        return Verdict("auth", word)
    if step == "mail" and answer == "invalid_recipient":
        return Verdict("rejected", word)
    return Verdict(answer, word, narrow=answer == "throttled" and step == "rcpt" and code != 421)


def _answer(code: int, enhanced: str) -> Answer:
    parts = enhanced.split(".")
    for key in (f"{code}-{enhanced}", f"{code}-{'.'.join(parts[:2])}", str(code)):
        if key in REPLIES:
            return REPLIES[key]
    return "transient" if code < 500 else "rejected"


def queue_id(text: str) -> str | None:
    """What the server calls a mail that it took, where it says so."""
    found = _QUEUED.search(text)
    return found.group(1)[:LONGEST_WORD] if found is not None else None
