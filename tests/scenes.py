"""One message to one user, to which every example of every rule kind objects: for contract tests and the rules page.

A rule's `examples` are its own; a kind that asks for more than sends (words, entries) finds it here.
"""

from typing import Any

import msgspec

from dispatcher.blacklist import Listed
from dispatcher.calendar import calendar_of
from dispatcher.catalog import decode_document
from dispatcher.keywords import WordList
from dispatcher.message import Message
from dispatcher.rules import RULE_KINDS, Rule
from dispatcher.user import COUNTED, TASK, Kind, UserView, pack, task_hash
from tests.worlds import ZONE, at

NOON_MS = at("2026-11-23T12:30:00")
NIGHT_MS = at("2026-11-23T03:00:00")
MINE = Kind("sms", "marketing", 5, "wallet", "sale")
LISTED = Listed(why="asked us to stop")
TASK_NAME = "spring-sale"
WORDS = {name: WordList(name, ["lottery", "free money"]) for name in ("default", "gambling")}
CASES = [(kind, i) for kind, rule in RULE_KINDS.items() for i in range(len(rule.examples))]


def rule_of(kind: str, **config: Any) -> Rule:
    """One rule, as the catalog would read it."""
    [rule] = decode_document("rules", msgspec.json.encode([{"kind": kind, "name": "a rule", **config}]))
    assert type(rule) is RULE_KINDS[kind]
    found: Rule = rule
    return found


def example(kind: str, number: int) -> Rule:
    """One of a kind's own examples."""
    return rule_of(kind, **RULE_KINDS[kind].examples[number])


def message_at(now_ms: int, content: int = 7) -> Message:
    """A marketing text message of a campaign, with a word in it that is on every list."""
    return Message(
        "m", "t", "u", "sms", "+8613800000000", "marketing", 5, 2, "wallet", "sale",
        {"text": "win our LOT-TERY today", "signature": "Shop"}, {}, now_ms, now_ms, now_ms + 86_400_000,
        task=TASK_NAME, content=content, key=1_000,
    )  # fmt: skip


def view(
    now_ms: int,
    ages_ms: tuple[int, ...] = (20_000, 10_000, 0),
    state: int = COUNTED,
    kind: Kind = MINE,
    listed: Listed | None = LISTED,
    content: int = 7,
    words: dict[str, WordList] = WORDS,
) -> UserView:
    """A user with a send of the message's campaign so long ago each; refunded ones have lost their task."""
    packed = b""
    for n, age_ms in enumerate(ages_ms):
        packed += pack(n, now_ms - age_ms, 0, content, state)
        if state == COUNTED:
            packed += pack(n, now_ms - age_ms, 0, task_hash(TASK_NAME), TASK)
    return UserView(packed, MINE, [kind], {}, listed, calendar_of(ZONE), calendar_of("Asia/Urumqi"), words)


def scene(kind: str) -> tuple[Message, UserView, int]:
    """A message that every example of this kind objects to, for a user with three like it within the last 20 s."""
    now_ms = NIGHT_MS if kind == "quiet_hours" else NOON_MS
    return message_at(now_ms), view(now_ms), now_ms
