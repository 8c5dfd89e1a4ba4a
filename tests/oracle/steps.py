"""What happens in a case: steps on a pair, each read off a gene."""

from dataclasses import replace
from typing import Any

from tests.oracle import clock
from tests.oracle.draw import CONTENTS, DAY_MS, LINES, WHOM, WORDS, Gene, compiled
from tests.oracle.model import Trigger
from tests.oracle.pair import Pair

WAITS: tuple[int | str, ...] = (
    *[0] * 10, 1, 1, 250, *[1_000] * 6, *[5_000] * 6, 20_250, 59_999, 60_000, 60_500, 299_999, 300_000, 900_000,
    3_599_999, 3_600_000, 7_200_000, 36_000_000, 86_399_999, 86_400_000, 604_800_000,
    "reset", "reset-", "midnight", "midnight-", "due", "due-", "hour", "window", "window-", "expiry",
)  # fmt: skip
_TEMPLATES = (
    "sale", "sale", "sale", "order", "order", "order", "order", "news", "news", "offer", "offer", "code", "hint",
    "card", "rate", "twin", "loans",
)  # fmt: skip


_ALIKE = ("order", "rate", "twin")  # in what they say
_LATER = (60_000, 0, 3_600_000, 36_000_000, 3 * DAY_MS, -30_000, -2 * DAY_MS)
_LINES = ("wallet", "wallet", "wallet", "wallet", "loan", "loan", "shop", "a")


class Story:
    """Steps on a pair, each read off a gene."""

    def __init__(self, pair: Pair, lists: list[list[dict[str, Any]]]) -> None:
        self.pair = pair
        self.lists = lists  # of rules, to replace those in force by
        self.replaced = 0

    def step(self, data: bytes) -> None:
        """One step: time passes, what is due is decided, something happens."""
        gene = Gene(data)
        do = gene.of(_STEPS)
        self._wait(gene.of(WAITS))
        if gene.below(4) < 3:
            self.pair.due()
        do(self, gene)

    def _wait(self, wait: int | str) -> None:
        now_ms = self.pair.now_ms
        if isinstance(wait, int):
            self.pair.now_ms += wait
            return
        target = self._moment(wait.rstrip("-")) - wait.endswith("-")
        if now_ms < target < now_ms + 40 * DAY_MS:
            self.pair.now_ms = target

    def _moment(self, name: str) -> int:
        pair = self.pair
        if name == "reset":
            return pair.resets_ms or 0
        if name == "due":
            return min((m.due_ms for m in pair.partition.parked.values()), default=0)
        if name == "expiry":
            return min((m.expires_ms for m in pair.partition.in_flight.values()), default=0)
        if name == "window":
            answered = (at_ms for told in pair.model.answers.values() for at_ms, _ in told)
            return max(answered, default=0) + pair.model.window_ms
        day = clock.day_of if name == "midnight" else clock.hour_of
        return day(pair.now_ms, pair.model.zone)[1]

    def submit(self, gene: Gene) -> None:
        person, to = gene.of(WHOM)
        content = gene.of(CONTENTS)
        template, line = gene.of(_TEMPLATES), gene.of(_LINES)
        if template == "loans" and gene.below(4):
            line = "loan"
        task = gene.of((None, None, "spring", "spring", "autumn"))
        rare = gene.below(16)
        ttl_s = gene.of((None, None, None, 60.0, 3_600.0, 864_000.0))
        send_at_ms = None
        if rare < 3:
            send_at_ms = self.pair.now_ms + gene.of(_LATER)
        channels = gene.of((["sms"], ["push"], ["sms", "email"])) if rare in (2, 3) else None
        if rare == 4:
            template, line = gene.of((("draft", line), ("nothing", line), (template, "nobody")))
        params = {} if content is None else {"n": content}
        id_ = f"t{len(self.pair.triggers)}"
        trigger = Trigger(id_, person, line, template, params, to, channels, task, ttl_s, send_at_ms)
        self.pair.submit(trigger, explained=rare % 2 == 0)

    def burst(self, gene: Gene) -> None:
        """Different notices at once: of one line, or of all in turn."""
        person, to = gene.of(WHOM)
        template, spread = gene.of(("order", "card", "hint", "news")), gene.below(6) == 5
        for n in range(32 if spread else 3 + gene.below(4)):
            line, id_ = LINES[n % len(LINES)] if spread else LINES[0], f"t{len(self.pair.triggers)}"
            self.pair.submit(Trigger(id_, person, line, template, {"n": f"burst {n}"}, to), explained=n == 3)

    def repeat(self, gene: Gene) -> None:
        """A trigger again, or another one under its id."""
        if not self.pair.triggers:
            return
        old = self.pair.triggers[-1 - gene.below(len(self.pair.triggers))]
        other = gene.of(({}, {}, {"params": {"n": "7"}}))
        self.pair.submit(replace(old, send_at_ms=None, **other))

    def again(self, gene: Gene) -> None:
        """What a former trigger said, under a new id."""
        if self.pair.triggers:
            old = self.pair.triggers[-1 - gene.below(min(3, len(self.pair.triggers)))]
            line = gene.of((old.line, old.line, "wallet"))
            template = gene.of((old.template, old.template, old.template, *_ALIKE))
            self.pair.submit(
                replace(old, id=f"t{len(self.pair.triggers)}", line=line, template=template, send_at_ms=None)
            )

    def end(self, gene: Gene) -> None:
        """A message ends: sent, unknown, or surely not sent."""
        flying = self.pair.in_flight()
        if flying:
            outcome, refund = gene.of((("failed", True), ("sent", False), ("failed", True), ("unknown", False)))
            self.pair.settle(gene.of(flying), outcome, refund)

    def fail(self, gene: Gene) -> None:
        """A message finally fails, and its plan goes on."""
        flying = self.pair.in_flight()
        if flying:
            message = gene.of(flying)
            self.pair.settle(message, "failed", refund=True)
            self.pair.fall(message)

    def attempt(self, gene: Gene) -> None:
        flying = self.pair.in_flight()
        if flying:
            self.pair.attempt(gene.of(flying))

    def blacklist(self, gene: Gene) -> None:
        """An entry comes or goes."""
        there = list(self.pair.model.blacklist.values())
        if gene.below(4) == 3 and there:
            self.pair.unblock(gene.of(there))
            return
        entry: dict[str, Any] = gene.of(
            ({"user": "ann"}, {"user": "ann"}, {"address": "+8613800000000"}, {"user": "bob"}, {"address": "token1"},
             {"address": "+8613900000001"})
        )  # fmt: skip
        entry = entry | gene.of(({}, {}, {"channel": "push"}, {"channel": "sms"}))
        entry |= gene.of(({}, {}, {"type": "marketing"}, {"type": "verification"}, {"type": "notice"}))
        entry |= gene.of(({}, {}, {"line": "wallet"}))
        expires_ms = gene.of((None, None, 60_000, 86_400_000))
        if expires_ms is not None:
            entry["expires_ms"] = self.pair.now_ms + expires_ms
        self.pair.block(entry)

    def rules(self, gene: Gene) -> None:
        """Other rules from now on, counters kept."""
        if len(self.lists) > 1:
            self.replaced += 1
            self.pair.use_rules(self.lists[self.replaced % len(self.lists)])

    def words(self, gene: Gene) -> None:
        i = gene.below(len(WORDS))
        self.pair.use_words("default", WORDS[i], compiled(i))

    def crash(self, gene: Gene) -> None:
        self.pair.crash()

    def snapshot(self, gene: Gene) -> None:
        self.pair.take_snapshot()

    def sweep(self, gene: Gene) -> None:
        self.pair.sweep()


#: What may happen, as often as it stands here.
_STEPS = (
    *[Story.submit] * 22, *[Story.again] * 4, *[Story.repeat] * 3, Story.burst, *[Story.end] * 4, *[Story.fail] * 2,
    *[Story.attempt] * 2, *[Story.blacklist] * 2, Story.rules, Story.words, *[Story.crash] * 2, *[Story.snapshot] * 2,
    *[Story.sweep] * 2,
)  # fmt: skip
