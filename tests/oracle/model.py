"""The whole decision as `rules.md` tells it: rejections, plans, idempotency, parking, refunds."""

from dataclasses import dataclass, field, replace
from typing import Any

from tests.oracle import rules
from tests.oracle.rules import Message, Scene, Verdict
from tests.oracle.text import rendered

#: Defaults by type: (ttl in seconds, level).
TYPES = {
    "verification": (300, 1),
    "notice": (86_400, 3),
    "repayment": (86_400, 2),
    "notice_marketing": (86_400, 4),
    "marketing": (86_400, 5),
}
YEAR_MS = 366 * 86_400_000


@dataclass(frozen=True, repr=False)
class Person:
    """Whom a trigger is for. `reach`: channel -> address in its one spelling."""

    name: str | None
    identity: str
    reach: dict[str, str]
    invalid: frozenset[str] = frozenset()
    zone: str | None = None

    def __repr__(self) -> str:
        return f"<{self.identity}, {self.zone or 'no zone'}>"


@dataclass(frozen=True)
class Trigger:
    """One trigger, with its addresses in the spelling the caller used. Times are epoch milliseconds."""

    id: str
    person: Person
    line: str
    template: str
    params: dict[str, str]
    to: dict[str, str] | None = None
    channels: list[str] | None = None
    task: str | None = None
    ttl_s: float | None = None
    send_at_ms: int | None = None


@dataclass
class Tried:
    """What became of one channel."""

    channel: str
    status: str
    reason: str | None = None
    due_ms: int | None = None
    message: Message | None = None
    verdict: Verdict | None = None  # that blocks it
    verdicts: list[Verdict] = field(default_factory=list)  # of every rule that was asked


@dataclass
class Answer:
    """The answer to one trigger; a duplicate's `first` is the whole first answer."""

    status: str
    reason: str | None = None
    tried: list[Tried] = field(default_factory=list)
    first: "Answer | None" = None


@dataclass
class Model:
    """Everything that ever happened. `blacklist` by whom and what; `words` by list."""

    templates: dict[str, Any]
    lines: list[str]
    zone: str
    window_ms: int
    spell: dict[str, str | None]  # how an address in a trigger is written properly; None: it cannot be one
    rules: list[dict[str, Any]] = field(default_factory=list)  # with their defaults
    blacklist: dict[tuple[Any, ...], dict[str, Any]] = field(default_factory=dict)
    words: dict[str, list[str]] = field(default_factory=dict)
    messages: list[Message] = field(default_factory=list)
    answers: dict[tuple[str, str, str], list[tuple[int, Answer]]] = field(default_factory=dict)
    count: int = 0

    # -- a trigger

    def submit(self, now_ms: int, trigger: Trigger) -> Answer:
        key = trigger.line, trigger.id, trigger.person.identity
        for at_ms, first in reversed(self.answers.get(key, [])):
            if now_ms - at_ms < self.window_ms:
                return Answer("duplicate", first=first)
        answer = self._new(now_ms, trigger)
        if answer.status != "rejected":
            self.answers.setdefault(key, []).append((now_ms, answer))
        return answer

    def _new(self, now_ms: int, trigger: Trigger) -> Answer:
        template = self.templates.get(trigger.template)
        fault = self._fault(now_ms, trigger, template)
        if fault is not None:
            return Answer("rejected", fault)
        self.count += 1
        contents = {content["channel"]: content for content in template["channels"]}
        for channel in trigger.channels or ():
            if channel not in contents:
                return Answer("rejected", f"unsupported_channel:{channel}")
        wanted = [channel for channel in contents if trigger.channels is None or channel in trigger.channels]
        person = self._reached(trigger)
        plan = self._all if template.get("mode") == "all" else self._first
        return plan(now_ms, trigger, person, wanted)

    def _fault(self, now_ms: int, trigger: Trigger, template: Any) -> str | None:
        if template is None:
            return "unknown_template"
        if template.get("status", "active") != "active":
            return "template_not_active"
        if trigger.line not in self.lines:
            return "unknown_line"
        if template.get("line", trigger.line) != trigger.line:
            return "line_mismatch"
        if trigger.send_at_ms is not None and trigger.send_at_ms > now_ms + YEAR_MS:
            return "invalid: send_at: more than 366 days ahead"
        return "expired" if self._expiry(now_ms, trigger) <= now_ms else None

    def _expiry(self, now_ms: int, trigger: Trigger) -> int:
        ttl_s = trigger.ttl_s or TYPES[self.templates[trigger.template]["type"]][0]
        return (now_ms if trigger.send_at_ms is None else trigger.send_at_ms) + round(ttl_s * 1000)

    def _reached(self, trigger: Trigger) -> Person:
        person = trigger.person
        reach, invalid = dict(person.reach), set(person.invalid)
        for channel, text in (trigger.to or {}).items():
            address = self.spell[text]
            reach.pop(channel, None)
            invalid.discard(channel)
            if address is None:
                invalid.add(channel)
            else:
                reach[channel] = address
        return replace(person, reach=reach, invalid=frozenset(invalid))

    def _first(self, now_ms: int, trigger: Trigger, person: Person, wanted: list[str]) -> Answer:
        tried: list[Tried] = []
        for i, channel in enumerate(wanted):
            message = self._draft(now_ms, trigger, person, channel)
            if isinstance(message, str):
                if "_address:" not in message:
                    return Answer("rejected", message)
                tried.append(Tried(channel, "rejected", message))
                continue
            message.later = wanted[i + 1 :]
            tried.append(self._decide(now_ms, message, person.zone))
            if tried[-1].reason != "blacklist":
                break
        decided = [one for one in tried if one.status != "rejected"]
        ended = decided[-1] if decided else tried[0]
        return Answer(ended.status, ended.reason, tried)

    def _all(self, now_ms: int, trigger: Trigger, person: Person, wanted: list[str]) -> Answer:
        drafts = {channel: self._draft(now_ms, trigger, person, channel) for channel in wanted}
        for draft in drafts.values():
            if isinstance(draft, str) and "_address:" not in draft:
                return Answer("rejected", draft)
        tried = [
            Tried(channel, "rejected", draft) if isinstance(draft, str) else self._decide(now_ms, draft, person.zone)
            for channel, draft in drafts.items()
        ]
        accepted = [one for one in tried if one.status == "accepted"]
        blocked = [one for one in tried if one.verdict is not None]
        tells = (accepted or blocked or tried)[0]
        return Answer(tells.status, tells.reason, tried)

    def _draft(self, now_ms: int, trigger: Trigger, person: Person, channel: str) -> Message | str:
        if channel not in person.reach:
            return f"{'invalid' if channel in person.invalid else 'no'}_address:{channel}"
        template = self.templates[trigger.template]
        [content] = [content for content in template["channels"] if content["channel"] == channel]
        try:
            fields = rendered(content, trigger.params)
        except KeyError as missing:
            return f"missing_param:{missing.args[0]}"
        if _too_long(channel, fields):
            return f"content_too_long:{channel}"
        type_ = template["type"]
        due_ms = max(now_ms, trigger.send_at_ms or 0)
        return Message(
            self.count, person.name, person.identity, channel, person.reach[channel], type_,
            template.get("level") or TYPES[type_][1], trigger.line, trigger.template, trigger.task, fields,
            trigger.params, self._expiry(now_ms, trigger), due_ms=due_ms,
        )  # fmt: skip

    # -- a message

    def scene(self, now_ms: int, own_zone: str | None) -> Scene:
        """What a rule may look at now."""
        return Scene(now_ms, self.zone, own_zone, self.messages, list(self.blacklist.values()), self.words)

    def _verdicts(self, now_ms: int, message: Message, own_zone: str | None, waits: bool) -> list[Verdict]:
        """What every rule that sees the message says of it; before its time, those that are asked then."""
        scene = self.scene(now_ms, own_zone)
        return [
            rules.ask(rule, message, scene)
            for rule in self.rules
            if rules.in_scope(rule, message) and (not waits or rule["kind"] in ("keyword", "blacklist"))
        ]

    def _decide(self, now_ms: int, message: Message, own_zone: str | None) -> Tried:
        """Admit it, park it or block it."""
        verdicts = self._verdicts(now_ms, message, own_zone, message.due_ms > now_ms)
        objection = next((verdict for verdict in verdicts if not verdict.passed), None)
        if objection is not None and objection.defer_ms is None:
            return Tried(message.channel, objection.status, objection.kind, None, message, objection, verdicts)
        if objection is not None and objection.defer_ms is not None:
            message.due_ms = objection.defer_ms
        if message not in self.messages:
            self.messages.append(message)
        message.parked = message.due_ms > now_ms
        if message.parked:
            return Tried(message.channel, "accepted", None, message.due_ms, message, None, verdicts)
        message.sent_ms, message.counted = now_ms, True
        return Tried(message.channel, "accepted", None, None, message, None, verdicts)

    def due(self, now_ms: int, message: Message, person: Person) -> list[Tried]:
        """A parked message's time has come: it is decided by the whole list, unless it expired."""
        message.parked = False
        if message.expires_ms <= now_ms:
            return []
        message.due_ms = now_ms
        tried = [self._decide(now_ms, message, person.zone)]
        return tried + self.fall(now_ms, message, person) if tried[0].reason == "blacklist" else tried

    def fall(self, now_ms: int, message: Message, person: Person) -> list[Tried]:
        """The message cannot be sent on its channel: its `first` plan goes on, with a new message of the trigger."""
        tried: list[Tried] = []
        if message.expires_ms <= now_ms:
            return tried
        for i, channel in enumerate(message.later):
            if channel not in person.reach:
                continue
            again = self._again(message, channel, person, now_ms)
            if again is None:
                continue
            again.later = message.later[i + 1 :]
            tried.append(self._decide(now_ms, again, person.zone))
            if tried[-1].reason != "blacklist":
                break
        return tried

    def _again(self, message: Message, channel: str, person: Person, now_ms: int) -> Message | None:
        template = self.templates[message.template]
        [content] = [content for content in template["channels"] if content["channel"] == channel]
        fields = rendered(content, message.params)
        if _too_long(channel, fields):
            return None
        return replace(
            message, channel=channel, to=person.reach[channel], fields=fields, due_ms=now_ms, sent_ms=-1,
            counted=False, parked=False,
        )  # fmt: skip

    def unwanted(self, now_ms: int, message: Message) -> bool:
        """Whether the blacklist, under a rule that sees the message, forbids an attempt to send it."""
        asks = any(rule["kind"] == "blacklist" and rules.in_scope(rule, message) for rule in self.rules)
        return asks and bool(rules.listing(message, self.scene(now_ms, None)))


def _too_long(channel: str, fields: dict[str, Any]) -> bool:
    """The limits the cases can reach: sms to +86 with signature, in its two brackets; subjects; titles and bodies."""
    if channel == "sms":
        signature = fields.get("signature")
        return len(fields["text"]) + (len(signature) + 2 if signature else 0) > 500
    if channel == "email":
        return len(fields["subject"]) > 255
    return channel == "push" and (len(fields["title"]) > 100 or len(fields["body"]) > 1_000)
