"""The system and the model side by side: each step is done to both, and every answer compared.

`Disagreement` tells the whole story so far, so that a failure reads as a worked example.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from dispatcher.admission import Admission, Moment, Rehearsal
from dispatcher.answers import Result
from dispatcher.calendar import calendar_of
from dispatcher.catalog import Catalog
from dispatcher.edit import Change, Edit
from dispatcher.entries import Blocked, End, Entry, Settle, decode_entry, encode_entry
from dispatcher.explanation import Rehearsed
from dispatcher.message import Message as SystemMessage
from dispatcher.partition import Partition
from dispatcher.profile import Profile, Reach
from dispatcher.rulebook import Rulebook
from dispatcher.rules import Objection
from dispatcher.trigger import Order
from tests.oracle.model import Answer, Model, Person, Tried, Trigger
from tests.oracle.rules import Message, Verdict, with_defaults
from tests.oracle.text import folded, texts_of

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Disagreement(AssertionError):
    """The system and the model say different things."""


def profile(person: Person) -> Profile:
    """The person's addresses as the system resolves them."""
    reach = {channel: Reach(to, "CN" if channel == "sms" else None) for channel, to in person.reach.items()}
    return Profile(reach, person.invalid, None if person.zone is None else calendar_of(person.zone))


def order(trigger: Trigger) -> Order:
    """The trigger as a gateway hands it on."""
    person, at_ms = trigger.person, trigger.send_at_ms
    return Order(
        trigger.id, person.identity, person.name, trigger.line, trigger.template, trigger.params, trigger.to,
        trigger.channels, trigger.task, trigger.ttl_s, None if at_ms is None else at_ms / 1000,
    )  # fmt: skip


class Pair:
    """One world, known to both."""

    def __init__(self, base: Catalog, model: Model, now_ms: int) -> None:
        self.model = model
        self.now_ms = now_ms
        self.story: list[tuple[int, tuple[object, ...]]] = []
        self.catalog = Catalog()
        self.catalog.templates, self.catalog.lines = base.templates, base.lines
        self.admission = Admission(self.catalog, calendar_of(model.zone), "CN")
        self.partition = self._empty()
        self.log: list[Entry] = []
        self.snapshot: Any = iter(())
        self.tail = 0  # entries of the log that the snapshot holds
        self.ids: dict[str, Message] = {}  # of the system's messages: the model's
        self.people: dict[str, Person] = {}
        self.triggers: list[Trigger] = []
        self.resets_ms: int | None = None  # as the last objection said
        self._version = 0

    def _empty(self) -> Partition:
        return Partition(3, Rulebook(self.catalog.rules), self.model.window_ms)

    # -- the catalog

    def use_rules(self, rules: list[dict[str, Any]], system: list[dict[str, Any]] | None = None) -> None:
        """Replace the rules. `system`: the same rules as the system is told them, when that is not the same words."""
        self.note("rules", rules)
        self.model.rules = [with_defaults(rule) for rule in rules]
        told = [{"name": f"rule {i}", **rule} for i, rule in enumerate(rules)] if system is None else system
        self._version += 1
        self.catalog.apply(self._version, "rules", "all", msgspec.json.encode(told))
        assert len(self.catalog.rules) == len(rules), "the catalog refused a rule"
        self.partition.use(Rulebook(self.catalog.rules))

    def block(self, entry: dict[str, Any]) -> None:
        """Put a blacklist entry, in the place of one for the same whom and what; `expires_ms` says when it ends."""
        self.note("blacklist", entry)
        self.model.blacklist[_whom_and_what(entry)] = entry
        self._follow(Edit("id", _written(entry)))

    def unblock(self, entry: dict[str, Any]) -> None:
        """Delete a blacklist entry."""
        self.note("blacklist deleted", entry)
        del self.model.blacklist[_whom_and_what(entry)]
        self._follow(Edit("id", None, _written(entry)))

    def _follow(self, edit: Edit) -> None:
        self._version += 1
        self.catalog.follow(Change(self._version, "blacklist", [edit]))

    def use_words(self, name: str, words: list[str], compiled: Any) -> None:
        """Replace a list of keywords."""
        self.note("keywords", name, words)
        self.model.words[name] = words
        self.catalog.keywords = {**self.catalog.keywords, name: compiled}

    # -- triggers

    def submit(self, trigger: Trigger, explained: bool = True) -> Answer:
        """One trigger, explained by a dry run if asked for, and then decided by both."""
        self.triggers.append(trigger)
        self.people[trigger.person.identity] = trigger.person
        rehearsed = self._rehearse(trigger) if explained else None
        moment = Moment(self.partition, self.now_ms)
        result = self.admission.admit(moment, order(trigger), profile(trigger.person), None)
        self._told(moment)
        expected = self.model.submit(self.now_ms, trigger)
        self.note("submit", trigger, "->", result.status, result.reason)
        self._compare(expected, result, moment.effects.blocks)
        if rehearsed is not None and expected.status not in ("duplicate", "rejected"):
            self._compare_findings(expected.tried, rehearsed)
        return expected

    def _rehearse(self, trigger: Trigger) -> list[Rehearsed]:
        """What a dry run finds, having changed nothing."""
        state = dict(self.partition.users), dict(self.partition.in_flight), dict(self.partition.parked)
        rehearsal = Rehearsal(self.partition, self.now_ms)
        self.admission.rehearse(rehearsal, order(trigger), profile(trigger.person))
        self._same("state", state, (self.partition.users, self.partition.in_flight, self.partition.parked))
        self._same("effects of a dry run", [], rehearsal.effects.entries(self.now_ms))
        return rehearsal.rehearsed

    def _compare_findings(self, tried: list[Tried], rehearsed: list[Rehearsed]) -> None:
        decided = [one for one in tried if one.message is not None]
        self._same("explained channels", [t.channel for t in decided], [r.message.channel for r in rehearsed])
        for one, found in zip(decided, rehearsed, strict=True):
            assert one.message is not None
            self._same("rules that see it", [v.kind for v in one.verdicts], [f.numbers.kind for f in found.findings])
            for verdict, finding in zip(one.verdicts, found.findings, strict=True):
                self._same(f"whether {verdict.kind} passes", verdict.passed, finding.passed)
                self._compare_numbers(verdict, one.message, finding.numbers)

    def _told(self, moment: Moment) -> None:
        self.log += [decode_entry(encode_entry(entry)) for entry in moment.effects.entries(self.now_ms)]

    def _compare(self, expected: Answer, got: Result, blocks: list[Blocked]) -> None:
        self._same("status", expected.status, got.status)
        self._same("reason", expected.reason, got.reason)
        if expected.first is not None:
            assert got.first is not None
            self._same("first", (expected.first.status, expected.first.reason), (got.first.status, got.first.reason))
            ids = [_id_of(self.ids, one) for one in expected.first.tried if one.status == "accepted"]
            self._same("the first messages", sorted(ids), sorted(m.message or "" for m in got.messages))
            self._same("blocks", [], blocks)
            return
        tried = [(m.channel, m.status, m.reason, m.due_ms) for m in got.messages]
        self._same("channels", [(t.channel, t.status, t.reason, t.due_ms) for t in expected.tried], tried)
        for one, message in zip(expected.tried, got.messages, strict=True):
            if one.status == "accepted" and one.message is not None:
                self.ids[message.message or ""] = one.message
        self._compare_blocks(expected.tried, blocks)
        finals = [] if expected.status in ("accepted", "rejected") else [expected.reason]
        self._same("final blocks", finals, [b.objection.kind for b in blocks if b.final])

    def _compare_blocks(self, tried: list[Tried], blocks: list[Blocked]) -> None:
        expected = {one.channel: one for one in tried if one.verdict is not None}
        self._same("blocked channels", sorted(expected), sorted(b.channel for b in blocks))
        for blocked in blocks:
            one = expected[blocked.channel]
            assert one.verdict is not None
            assert one.message is not None
            self._same("status of the block", one.status, blocked.status)
            self._compare_numbers(one.verdict, one.message, blocked.objection)
            self.resets_ms = blocked.objection.resets_at_ms or self.resets_ms

    def _compare_numbers(self, verdict: Verdict, message: Message, got: Objection) -> None:
        numbers = verdict.kind, verdict.count, verdict.limit, verdict.window_s
        self._same("kind, count, limit, window", numbers, (got.kind, got.count, got.limit, got.window_s))
        if got.resets_at_ms not in verdict.resets:
            self._same("resets at", verdict.resets, got.resets_at_ms)
        if verdict.hits:
            self._compare_word(verdict, message, got)

    def _compare_word(self, verdict: Verdict, message: Message, got: Objection) -> None:
        field = (got.field or "").split(".")[0].split("[")[0]
        if (field, got.word) not in verdict.hits:
            self._same("field and word", sorted(verdict.hits), (got.field, got.word))
        starts = [folded(text[got.position :]) for text in texts_of(message.fields[field])]
        if not any(start.startswith(folded(got.word or "")) for start in starts):
            self._same("position", (got.word, starts), got.position)

    def _same(self, what: str, expected: object, got: object) -> None:
        if expected != got:
            raise Disagreement(f"{what}: rules.md says {expected}, the system {got}\n" + self.told())

    def told(self) -> str:
        """The story so far, a step a line."""
        lines = [f"{_EPOCH + timedelta(milliseconds=at)} " + " ".join(map(str, what)) for at, what in self.story]
        return "\n  ".join((f"zone {self.model.zone}, window {self.model.window_ms} ms", *lines))

    def note(self, *what: object) -> None:
        """One line of the story."""
        self.story.append((self.now_ms, what))

    # -- what becomes of messages

    def in_flight(self) -> list[SystemMessage]:
        """Messages accepted and not ended, oldest first."""
        return list(self.partition.in_flight.values())

    def settle(self, message: SystemMessage, outcome: str, refund: bool) -> None:
        """A message ended."""
        self.note(message.id, "of", message.trigger, outcome)
        self._write(Settle(self.now_ms, [End(message.id, outcome, refund)]))
        if refund:
            self.ids[message.id].counted = False

    def _write(self, entry: Entry) -> None:
        self.partition.apply(entry)
        self.log.append(decode_entry(encode_entry(entry)))

    def attempt(self, message: SystemMessage) -> None:
        """A message is about to be sent: expiry and blacklist are asked once more."""
        mine = self.ids[message.id]
        unwanted = self.admission.unwanted(self.partition, message, self.now_ms)
        self._same("unwanted", self.model.unwanted(self.now_ms, mine), unwanted is not None)
        if message.expires_ms <= self.now_ms:
            self.settle(message, "expired", refund=True)
        elif unwanted is not None:
            self.settle(message, "filtered", refund=True)
            self.fall(message)

    def fall(self, message: SystemMessage) -> None:
        """A refunded message's plan goes on with its next channel, a moment later: a provider had to answer first."""
        self.now_ms += 1
        mine = self.ids[message.id]
        person = self.people[message.identity]
        moment = Moment(self.partition, self.now_ms)
        self.admission.fall(moment, message, profile(person))
        self._told(moment)
        self.note("the plan of", message.trigger, "goes on after", message.channel)
        self._compare_later(self.model.fall(self.now_ms, mine, person), moment)

    def due(self) -> None:
        """Every parked message whose time has come is decided, in the order of their times."""
        ready = [m for m in self.partition.parked.values() if m.due_ms <= self.now_ms]
        for message in sorted(ready, key=lambda m: (m.due_ms, m.id)):
            mine = self.ids[message.id]
            self._same("due", mine.due_ms, message.due_ms)
            person = self.people[message.identity]
            moment = Moment(self.partition, self.now_ms)
            self.admission.due(moment, message, profile(person))
            self._told(moment)
            self.note(message.id, "of", message.trigger, "was due at", message.due_ms)
            tried = self.model.due(self.now_ms, mine, person)
            if tried or mine.expires_ms > self.now_ms:
                self._compare_later(tried, moment)
            else:
                self._same("ends", ["expired"], [end.outcome for end in moment.effects.ends])

    def _compare_later(self, tried: list[Tried], moment: Moment) -> None:
        effects = moment.effects
        self._compare_blocks(tried, effects.blocks)
        for parked, messages in ((False, effects.admitted), (True, effects.parked)):
            mine = [t for t in tried if t.status == "accepted" and t.message is not None and t.message.parked is parked]
            self._same("accepted later", [t.channel for t in mine], [m.channel for m in messages])
            for one, message in zip(mine, messages, strict=True):
                assert one.message is not None
                self.ids[message.id] = one.message

    # -- what must change nothing

    def take_snapshot(self) -> None:
        """Begin a snapshot. Its pieces are drawn at the crash: what happens meanwhile must not be in them."""
        self.note("snapshot")
        self.snapshot, self.tail = self.partition.slices(2), len(self.log)

    def crash(self) -> None:
        """Rebuild the partition from the snapshot and the log's tail, as a new owner does."""
        self.note("crash")
        pieces = list(self.snapshot)
        self.snapshot = iter(pieces)
        rebuilt = self._empty()
        for piece in pieces:
            rebuilt.load(piece)
        for entry in self.log[self.tail :]:
            rebuilt.apply(entry)
        self._same("in flight", self.partition.in_flight, rebuilt.in_flight)
        self._same("parked", self.partition.parked, rebuilt.parked)
        self.partition = rebuilt

    def sweep(self) -> None:
        """Drop what has expired."""
        self.note("sweep")
        self.partition.sweep(list(self.partition.users), self.now_ms)


def _written(entry: dict[str, Any]) -> bytes:
    told = {name: value for name, value in entry.items() if name != "expires_ms"}
    if "expires_ms" in entry:
        told["expires_at"] = (_EPOCH + timedelta(milliseconds=entry["expires_ms"])).isoformat()
    return msgspec.json.encode(told)


def _whom_and_what(entry: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(entry.get(name) for name in ("user", "address", "channel", "type", "line"))


def _id_of(ids: dict[str, Message], tried: Tried) -> str:
    return next(name for name, message in ids.items() if message is tried.message)
