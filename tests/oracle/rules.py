"""The nine kinds of rules, each said once more, over a plain list of all sends.

A rule is a plain dict as a person writes it in the catalog.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from tests.oracle import clock
from tests.oracle.text import texts_of, words_in

MARKETING = ["marketing", "notice_marketing"]
DAY_S, WEEK_S = 86_400, 604_800

#: The defaults of each kind: column "parameters (default)" of the table.
DEFAULTS: dict[str, dict[str, Any]] = {
    "keyword": {"list": "default"},
    "blacklist": {},
    "quiet_hours": {"allow": "09:00-20:00", "types": MARKETING, "outside": "filter"},
    "frequency": {"types": MARKETING},
    "task_frequency": {"limit": 1, "window_s": 30 * DAY_S},
    "level_cap": {"min_level": 4, "types": ["notice", "notice_marketing"]},
    "line_cap": {"limit": 5, "per": "day"},
    "company_cap": {"limit": 30, "per": "day"},
    "repeat": {"window_s": 300},
}
STATUS = {kind: "filtered" for kind in DEFAULTS} | dict.fromkeys(
    ("keyword", "line_cap", "company_cap", "repeat"), "intercepted"
)

#: The shipped rules in their order: the table's "Shipped" remarks and the line "Shipped order".
SHIPPED: list[dict[str, Any]] = [
    {"kind": "keyword"},
    {"kind": "blacklist"},
    {"kind": "quiet_hours"},
    {"kind": "task_frequency", "types": ["notice", "repayment", "notice_marketing", "marketing"]},  # not `verification`
    {"kind": "frequency", "channels": ["sms"], "limit": 1, "window_s": WEEK_S},
    {"kind": "frequency", "channels": ["push"], "limit": 3, "window_s": DAY_S},
    {"kind": "frequency", "channels": ["wechat"], "limit": 2, "window_s": WEEK_S},
    {"kind": "frequency", "channels": ["email"], "limit": 2, "window_s": WEEK_S},
    {"kind": "level_cap", "limit": 3, "window_s": DAY_S},
    {"kind": "line_cap", "channels": ["sms"], "limit": 5, "per": "day"},
    {"kind": "line_cap", "channels": ["push"], "limit": 20, "per": "day"},
    {"kind": "company_cap", "channels": ["sms"], "limit": 30, "per": "day"},
    {"kind": "company_cap", "channels": ["push"], "limit": 60, "per": "day"},
    {"kind": "repeat"},
]


@dataclass(eq=False)
class Message:
    """One trigger on one channel, and what became of it. Times are epoch milliseconds."""

    number: int  # of the trigger among all triggers that were not duplicates
    user: str | None
    identity: str
    channel: str
    to: str
    type: str
    level: int
    line: str
    template: str
    task: str | None
    fields: dict[str, Any]
    params: dict[str, str]
    expires_ms: int
    later: list[str] = field(default_factory=list)  # channels of a `first` plan not tried yet
    due_ms: int = 0
    sent_ms: int = -1  # when its slot was reserved
    counted: bool = False  # its slot is reserved or committed
    parked: bool = False


@dataclass
class Scene:
    """Everything a rule may look at."""

    now_ms: int
    zone: str
    own_zone: str | None
    sends: list[Message]
    blacklist: list[dict[str, Any]]
    words: dict[str, list[str]]


@dataclass
class Verdict:
    """What one rule says. `resets` are the admissible moments: one, unless the page leaves open which."""

    passed: bool
    kind: str
    count: int | None = None
    limit: int | None = None
    window_s: float | None = None
    resets: tuple[int | None, ...] = (None,)
    hits: frozenset[tuple[str, str]] = frozenset()  # of a keyword: (field, word)
    defer_ms: int | None = None

    @property
    def status(self) -> str:
        return STATUS[self.kind]


def with_defaults(rule: dict[str, Any]) -> dict[str, Any]:
    """The rule with every parameter; a window of its own replaces the default one."""
    defaults = dict(DEFAULTS[rule["kind"]])
    if "window_s" in rule or "per" in rule:
        defaults.pop("per", None)
        defaults.pop("window_s", None)
    return {**defaults, **rule}


def in_scope(rule: dict[str, Any], message: Message) -> bool:
    """Whether the rule sees such a message."""
    if rule["kind"] == "level_cap" and message.level < rule["min_level"]:
        return False
    return (
        _names(rule, "types", message.type)
        and _names(rule, "channels", message.channel)
        and _names(rule, "lines", message.line)
        and _names(rule, "templates", message.template)
        and _names(rule, "levels", message.level)
    )


def _names(rule: dict[str, Any], scope: str, value: object) -> bool:
    wanted = rule.get(scope)
    return not wanted or value in wanted


def ask(rule: dict[str, Any], message: Message, scene: Scene) -> Verdict:
    """What the rule, which sees the message, says of it now."""
    return _ASK[rule["kind"]](rule, message, scene)


# -- the words, the list, the night


def _keyword(rule: dict[str, Any], message: Message, scene: Scene) -> Verdict:
    words = scene.words.get(rule["list"], [])
    hits = {
        (name, word) for name, value in message.fields.items() for t in texts_of(value) for word in words_in(t, words)
    }
    return Verdict(not hits, "keyword", hits=frozenset(hits))


def listing(message: Message, scene: Scene) -> list[dict[str, Any]]:
    """The blacklist entries that match a message."""
    return [entry for entry in scene.blacklist if _lists(entry, message, scene.now_ms)]


def _lists(entry: dict[str, Any], message: Message, now_ms: int) -> bool:
    named = entry.get("type")
    wanted = message.type != "verification" if named is None else named == message.type
    return (
        wanted
        and _is_for(entry, message)
        and entry.get("channel") in (None, message.channel)
        and entry.get("line") in (None, message.line)
        and (entry.get("expires_ms") is None or now_ms < entry["expires_ms"])
    )


def _is_for(entry: dict[str, Any], message: Message) -> bool:
    return entry["user"] == message.user if "user" in entry else entry["address"] == message.to


def _blacklist(rule: dict[str, Any], message: Message, scene: Scene) -> Verdict:
    entries = listing(message, scene)
    return Verdict(not entries, "blacklist", resets=tuple(entry.get("expires_ms") for entry in entries) or (None,))


def _zone(rule: dict[str, Any], scene: Scene) -> str:
    return scene.own_zone if rule.get("timezone") == "user" and scene.own_zone else scene.zone


def _quiet_hours(rule: dict[str, Any], message: Message, scene: Scene) -> Verdict:
    zone = _zone(rule, scene)
    if clock.open_now(scene.now_ms, zone, rule["allow"]):
        return Verdict(True, "quiet_hours")
    opens_ms = clock.opens_at(scene.now_ms, zone, rule["allow"])
    defer = rule["outside"] == "defer" and opens_ms < message.expires_ms
    return Verdict(False, "quiet_hours", resets=(opens_ms,), defer_ms=opens_ms if defer else None)


# -- counts


def _counted(rule: dict[str, Any], message: Message, scene: Scene) -> Iterable[Message]:
    for sent in scene.sends:
        if sent.counted and sent.identity == message.identity and in_scope(rule, sent):
            yield sent


def _rolling(times: list[int], limit: int, window_s: float, kind: str, now_ms: int) -> Verdict:
    """`times`: of everything that counts, however old."""
    span_ms = clock.span_ms(window_s)

    def count(at_ms: int) -> int:
        return sum(at_ms - t < span_ms for t in times)

    n = count(now_ms)
    ends = sorted(t + span_ms for t in times if now_ms - t < span_ms)
    falls_to = limit if n >= limit else n  # while it passes: when the count falls
    resets = next((at for at in ends if count(at) < falls_to), None)
    return Verdict(n < limit, kind, n, limit, window_s, (resets,))


def _capped(mine: Callable[[Message, Message], bool]) -> Callable[[dict[str, Any], Message, Scene], Verdict]:
    """A count of sends on the message's channel for which `mine(sent, message)` holds."""

    def verdict(rule: dict[str, Any], message: Message, scene: Scene) -> Verdict:
        sends = _counted(rule, message, scene)
        times = [sent.sent_ms for sent in sends if sent.channel == message.channel and mine(sent, message)]
        kind, limit, now_ms = rule["kind"], rule["limit"], scene.now_ms
        if "window_s" in rule:
            return _rolling(times, limit, rule["window_s"], kind, now_ms)
        window = clock.day_of if rule["per"] == "day" else clock.hour_of
        start, end = window(now_ms, _zone(rule, scene))
        n = sum(start <= t < end for t in times)
        return Verdict(n < limit, kind, n, limit, (end - start) / 1000, (end,))

    return verdict


def _task_frequency(rule: dict[str, Any], message: Message, scene: Scene) -> Verdict:
    if message.task is None:
        return Verdict(True, "task_frequency")
    last: dict[int, int] = {}  # of each other trigger of the task: when it last reached the user
    for sent in _counted(rule, message, scene):
        if sent.task == message.task and sent.number != message.number:
            last[sent.number] = max(last.get(sent.number, 0), sent.sent_ms)
    return _rolling(list(last.values()), rule["limit"], rule["window_s"], "task_frequency", scene.now_ms)


def _repeat(rule: dict[str, Any], message: Message, scene: Scene) -> Verdict:
    span_ms = clock.span_ms(rule["window_s"])
    alike = [
        sent.sent_ms
        for sent in _counted(rule, message, scene)
        if sent.channel == message.channel and sent.fields == message.fields and scene.now_ms - sent.sent_ms < span_ms
    ]
    resets = max(alike) + span_ms if alike else None
    return Verdict(not alike, "repeat", min(len(alike), 1), 1, rule["window_s"], (resets,))


_ASK: dict[str, Callable[[dict[str, Any], Message, Scene], Verdict]] = {
    "keyword": _keyword,
    "blacklist": _blacklist,
    "quiet_hours": _quiet_hours,
    "frequency": _capped(lambda sent, message: True),
    "task_frequency": _task_frequency,
    "level_cap": _capped(lambda sent, message: True),
    "line_cap": _capped(lambda sent, message: sent.line == message.line),
    "company_cap": _capped(lambda sent, message: True),
    "repeat": _repeat,
}
