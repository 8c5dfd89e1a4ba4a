"""Worlds and rules drawn from genes: six bytes each, so that a case is cheap to draw and shrinks piece by piece.

A gene is a number in mixed radix; zero everywhere is the plainest choice.
"""

from functools import cache
from typing import Any

from dispatcher.catalog import Catalog
from dispatcher.keywords import WordList
from tests.oracle.model import Model, Person
from tests.oracle.pair import Pair
from tests.worlds import at, catalog_of

GENE_BYTES = 6
DAY_MS = 86_400_000


class Gene:
    """Choices, read off six bytes."""

    def __init__(self, data: bytes) -> None:
        self._left = int.from_bytes(data, "little")

    def below(self, n: int) -> int:
        """A number in `[0, n)`."""
        self._left, found = divmod(self._left, n)
        return found

    def of(self, choices: Any) -> Any:
        """One of these."""
        return choices[self.below(len(choices))]


# -- the world

ZONES = ("Asia/Shanghai", "Asia/Shanghai", "Asia/Shanghai", "America/New_York", "Europe/London")

TEMPLATES: dict[str, Any] = {
    "sale": {"type": "marketing", "channels": [{"channel": "sms", "text": "sale {n}"}]},
    "order": {"type": "notice", "channels": [{"channel": "sms", "text": "order {n}"}]},
    "news": {
        "type": "notice_marketing", "mode": "all",
        "channels": [
            {"channel": "sms", "text": "news {n}", "signature": "Shop"},
            {"channel": "push", "title": "news", "body": "{n}"},
        ],
    },
    "offer": {
        "type": "marketing",
        "channels": [
            {"channel": "push", "title": "offer", "body": "{n}", "jump": {"kind": "h5", "url": "https://s.example/{n}"}},
            {"channel": "sms", "text": "offer {n}"},
            {"channel": "email", "subject": "offer", "text": "{n}", "html": "<b>{n}</b>"},
        ],
    },
    "code": {"type": "verification", "channels": [{"channel": "sms", "text": "code {n}", "signature": "Shop"}]},
    "hint": {
        "type": "notice", "level": 5,
        "channels": [{"channel": "push", "title": "hint", "body": "{n}"}, {"channel": "sms", "text": "order {n}"}],
    },
    "card": {
        "type": "notice", "level": 4, "mode": "all",
        "channels": [
            {"channel": "wechat", "template_id": "w1", "data": {"first": {"value": "{n}"}, "list": ["a", "{n}"]}},
            {"channel": "email", "subject": "card {n}", "text": "card"},
            {"channel": "webhook", "body": {"n": "{n}", "deep": [{"m": "{n}"}]}},
        ],
    },
    "rate": {"type": "repayment", "channels": [{"channel": "sms", "text": "order {n}", "signature": "Bank"}]},
    "twin": {"type": "repayment", "level": 1, "channels": [{"channel": "sms", "text": "order {n}"}]},
    "loans": {"type": "notice", "line": "loan", "channels": [{"channel": "sms", "text": "loan {n}"}]},
    "draft": {"type": "notice", "status": "draft", "channels": [{"channel": "sms", "text": "x"}]},
}  # fmt: skip
LINES = ("wallet", "loan", "shop", "a", "b", "c", "d")
SPELL: dict[str, str | None] = {
    "+8613900000001": "+8613900000001", "139 0000 0001": "+8613900000001", "+86 137-0000-0002": "+8613700000002",
    "12": None,
}  # fmt: skip
_ALL = {
    "sms": "+8613800000000",
    "push": "token1",
    "wechat": "openid1",
    "email": "a@x.example",
    "webhook": "https://h.example/1",
}
ANN = Person("ann", "ann", _ALL)
BOB = Person("bob", "bob", {"sms": "+8613800000001", "push": "token2"}, zone="America/New_York")
CAT = Person("cat", "cat", {"sms": "+8613800000002", "email": "c@x.example"}, frozenset({"push"}), "Europe/London")
DAN = Person("dan", "dan", {"push": "token3"}, zone="America/Havana")
EVE = Person("eve", "eve", {"sms": "+8613800000003", "wechat": "openid2"}, zone="Asia/Kathmandu")
NUMBER = Person(None, "+8613900000001", {})
#: Who, and the addresses the trigger brings.
WHOM: tuple[tuple[Person, dict[str, str] | None], ...] = (
    *[(ANN, None)] * 14, *[(BOB, None)] * 5, (CAT, None), (DAN, None),
    (DAN, {"sms": "+86 137-0000-0002"}), (EVE, None), (EVE, {"sms": "12"}), (NUMBER, {"sms": "139 0000 0001"}),
    (NUMBER, {"sms": "+8613900000001"}),
)  # fmt: skip

_LONG = "x" * 600
CONTENTS: tuple[str | None, ...] = (
    *["1"] * 6, *["2"] * 4, "3", "4", "5", "6", "win F.R\u200bE_E now", "優 惠", "ｆree", "Fr\u00e9e", _LONG, None,
)  # fmt: skip
WORDS = (["free", "优惠"], ["Free!", "winnow"], ["發", "x y"], [])

#: Around which moments time passes: an ordinary day, nights, changes of the clocks (New York, London, Havana).
STARTS = tuple(
    at(text)
    for text in (
        "2026-11-23T10:00:00", "2026-11-23T10:00:00", "2026-11-23T08:59:59.999", "2026-11-23T19:59:58",
        "2026-11-23T23:59:59", "2026-11-24T00:00:00", "2026-02-28T23:30:00",
        "2026-03-08T06:30:00Z", "2026-03-08T06:59:59.999Z", "2026-03-07T14:00:00Z", "2026-03-08T04:30:00Z",
        "2026-11-01T05:30:00Z", "2026-11-01T05:59:59Z", "2026-10-31T15:00:00Z", "2026-11-01T03:59:00Z",
        "2026-03-29T00:30:00Z", "2026-03-28T21:00:00Z", "2026-10-25T00:30:00Z", "2026-10-24T22:59:59Z",
        "2026-10-25T01:00:00Z",
    )
)  # fmt: skip

# -- rules

WINDOWS: tuple[dict[str, Any], ...] = (
    {"per": "day"}, {"window_s": 60}, {"per": "hour"}, {"window_s": 3_600}, {"window_s": 60.5}, {"window_s": 86_400},
    {"per": "day", "timezone": "user"}, {"per": "hour", "timezone": "user"}, {"window_s": 604_800}, {"window_s": 0.25},
    {"window_s": 60.0005}, {"window_s": 2_592_000},
)  # fmt: skip
ALLOWS = (
    "09:00-20:00", "08:00-21:30", "22:00-06:00", "00:00-24:00", "02:15-02:45", "01:30-03:00", "20:00-01:30",
    "00:00-00:30", "12:00-24:00", "02:30-23:00",
)  # fmt: skip
TYPES: tuple[dict[str, Any], ...] = (
    {}, {}, {}, {"types": []}, {"types": ["marketing"]}, {"types": ["notice", "repayment", "marketing"]},
)  # fmt: skip
CHANNELS: tuple[dict[str, Any], ...] = ({}, {}, {"channels": ["sms"]}, {"channels": ["push", "email"]})
SCOPES: tuple[dict[str, Any], ...] = (
    {}, {}, {}, {}, {"lines": ["wallet"]}, {"lines": ["loan", "shop"]}, {"templates": ["sale", "order", "news"]},
    {"levels": [4, 5]}, {"levels": [1, 3, 5]},
)  # fmt: skip
KINDS = (
    "frequency", "line_cap", "company_cap", "repeat", "quiet_hours", "blacklist", "keyword", "level_cap",
    "task_frequency",
)  # fmt: skip
#: They never object and keep every send in mind, for lists that are replaced: a rule whose window is longer than that
#: of all rules before it finds the sends those could count, no older ones.
KEEPERS: tuple[dict[str, Any], ...] = (
    {"kind": "company_cap", "limit": 1_000_000, "window_s": 5_184_000},
    {"kind": "task_frequency", "limit": 1_000_000, "window_s": 5_184_000},
)


def rule_of(gene: Gene) -> dict[str, Any]:
    """One random rule."""
    kind = gene.of(KINDS)
    rule: dict[str, Any] = {"kind": kind, **gene.of(TYPES), **gene.of(CHANNELS), **gene.of(SCOPES)}
    if kind in ("frequency", "line_cap", "company_cap", "level_cap"):
        rule |= {"limit": gene.of((1, 2, 3, 1, 2, 0)), **gene.of(WINDOWS)}
    if kind == "level_cap":
        rule["min_level"] = gene.of((4, 5, 3, 1))
    elif kind == "task_frequency":
        rule |= {"limit": gene.of((1, 2, 1, 0)), "window_s": gene.of((2_592_000, 60, 3_600, 60.5, 86_400))}
    elif kind == "repeat":
        rule["window_s"] = gene.of((300, 60, 3_600, 20.25, 0.0004, 86_400))
    elif kind == "quiet_hours":
        rule |= {"allow": gene.of(ALLOWS), "outside": gene.of(("filter", "defer", "defer"))}
        rule |= gene.of(({}, {"timezone": "user"}))
    return rule


@cache
def base() -> Catalog:
    """Templates and lines, compiled once."""
    catalog = catalog_of([], TEMPLATES)
    catalog.lines.update({line: catalog.lines["wallet"] for line in LINES})
    return catalog


@cache
def compiled(i: int) -> WordList:
    """One of the lists of keywords, built once."""
    return WordList("default", WORDS[i])


def world(gene: Gene, zone: str | None = None) -> Pair:
    """A world without rules."""
    model = Model(TEMPLATES, ["default", *LINES], zone or gene.of(ZONES), gene.of((DAY_MS, DAY_MS, 200_000)), SPELL)
    pair = Pair(base(), model, gene.of(STARTS))
    i = gene.of((0, 0, 0, 1, 2, 3))
    pair.use_words("default", WORDS[i], compiled(i))
    return pair
