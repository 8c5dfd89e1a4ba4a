"""The system against the oracle: random rules, users, times, refunds, crashes and replays, and after every trigger the
same decision, reason and numbers, from the answer, from the log and from a dry run."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import Phase, given, settings

from config.load import load
from dispatcher import partition
from dispatcher.ident import content_hash
from dispatcher.partition import Partition
from dispatcher.rules.level_cap import LevelCap
from dispatcher.rules.line_cap import LineCap
from dispatcher.rules.quiet_hours import QuietHours
from dispatcher.rules.scope import Capped
from dispatcher.rules.task_frequency import TaskFrequency
from dispatcher.template import CompiledContent
from dispatcher.user import UserView
from tests.oracle import draw
from tests.oracle.pair import Disagreement, Pair
from tests.oracle.rules import DEFAULTS, SHIPPED, with_defaults
from tests.oracle.steps import Story

CASES = 10_000
SHIPPED_IN_CONFIG: list[dict[str, Any]] = [msgspec.to_builtins(rule) for rule in load(None, {}).rules]

genes = st.lists(st.binary(min_size=draw.GENE_BYTES, max_size=draw.GENE_BYTES), min_size=9, max_size=17)


@dataclass
class Tally:
    """What a run has seen, so that a test can tell that it has seen enough."""

    cases: int = 0
    answers: dict[str, int] = field(default_factory=dict)

    def saw(self, pair: Pair) -> None:
        self.cases += 1
        for told in pair.model.answers.values():
            for _, answer in told:
                what = answer.reason or answer.status
                self.answers[what] = self.answers.get(what, 0) + 1


def shipped(data: list[bytes]) -> Pair:
    """A case under the shipped rules, sometimes replaced by random ones and back."""
    first = draw.Gene(data[0])
    edited = first.below(4) == 3
    pair = draw.world(first, None if first.below(4) else "Asia/Shanghai")
    keep, steps = (list(draw.KEEPERS), data[4:]) if edited else ([], data[1:])
    pair.use_rules([*SHIPPED, *keep], [*SHIPPED_IN_CONFIG, *named(keep)])
    lists = [[*SHIPPED, *keep], [*map(draw.rule_of, map(draw.Gene, data[1:4])), *keep]] if edited else []
    return play(pair, lists, steps)


def random_rules(data: list[bytes]) -> Pair:
    """A case under one to six random rules, sometimes replaced."""
    first = draw.Gene(data[0])
    count = 1 + first.below(6)
    edited = first.below(4) == 3
    pair = draw.world(first)
    rules = [draw.rule_of(draw.Gene(gene)) for gene in data[1 : 1 + count]]
    lists = [[*rules, *draw.KEEPERS], [*rules[1::2], *draw.KEEPERS], [*rules[::-1], *draw.KEEPERS]] if edited else []
    pair.use_rules(lists[0] if edited else rules)
    return play(pair, lists, data[1 + count :])


def named(rules: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"name": f"keeper {i}", **rule} for i, rule in enumerate(rules)]


def play(pair: Pair, lists: list[list[dict[str, Any]]], steps: list[bytes]) -> Pair:
    story = Story(pair, lists)
    for step in steps:
        story.step(step)
    pair.crash()
    return pair


def explore(one: Callable[[list[bytes]], Pair], cases: int, **how: Any) -> Tally:
    """Run generated cases; what was seen in those that agreed."""
    tally = Tally()

    def agrees(data: list[bytes]) -> None:
        tally.saw(one(data))

    agrees.__name__ = one.__name__  # each has its own place in Hypothesis's database, and its name in a failure
    settings(max_examples=cases, **how)(given(genes)(agrees))()
    return tally


def enough() -> int:
    """Cases of each of the two tests: 10,000, or five times as many under `make fuzz`."""
    return CASES * max(1, settings.default.max_examples // 1_000)


@pytest.mark.parametrize("one", [shipped, random_rules], ids=["shipped rules", "random rules"])
def test_the_system_decides_as_the_oracle(one: Callable[[list[bytes]], Pair]) -> None:
    tally = explore(one, enough())
    print(f"{tally.cases} cases agreed: {tally.answers}")
    assert tally.cases >= enough()
    for what in ("accepted", *DEFAULTS):  # a run that never meets a rule shows nothing of it
        assert tally.answers.get(what, 0) >= tally.cases // 500, (what, tally.answers)


def test_the_oracle_knows_the_shipped_rules() -> None:
    """The shipped rules are those of the page: the same in the same order, apart from their names."""
    told = [{name: value for name, value in rule.items() if value not in ((), None)} for rule in SHIPPED_IN_CONFIG]
    meant = [{**with_defaults(rule), "name": rule_["name"]} for rule, rule_ in zip(SHIPPED, told, strict=True)]
    assert [{k: list(v) if isinstance(v, tuple) else v for k, v in rule.items()} for rule in told] == meant


# -- the comparison can fail


def closed_window(patch: pytest.MonkeyPatch) -> None:
    """A send exactly as old as the window still counts."""
    since = Capped._since_ms
    patch.setattr(Capped, "_since_ms", lambda rule, user_, now_ms: since(rule, user_, now_ms) - 1)


def one_too_many(patch: pytest.MonkeyPatch) -> None:
    """The latest send is overlooked."""
    times = UserView.times
    patch.setattr(UserView, "times", lambda view, rule, since_ms: times(view, rule, since_ms)[:-1])


def lost_refunds(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(partition, "refund", lambda packed, *how: packed)


def open_too_long(patch: pytest.MonkeyPatch) -> None:
    """The window's last moment is still inside."""
    opened = QuietHours._open
    patch.setattr(QuietHours, "_open", lambda rule, clock: opened(rule, max(clock - 1, 0)))


def task_on_one_channel(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(TaskFrequency, "counts", lambda rule, sent, mine: rule.sees(sent) and sent.channel == mine.channel)


def level_off_by_one(patch: pytest.MonkeyPatch) -> None:
    sees = LevelCap.sees
    patch.setattr(LevelCap, "sees", lambda rule, kind: kind.level != rule.min_level and sees(rule, kind))


def any_line(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(LineCap, "counts", Capped.counts)


def no_signature(patch: pytest.MonkeyPatch) -> None:
    """Contents that differ in their signature only are taken for equal."""
    patch.setattr(CompiledContent, "hash", lambda content, fields: content_hash(fields.get("text", "").encode()))


def forgotten_parking(patch: pytest.MonkeyPatch) -> None:
    """A crash loses what was parked before the snapshot."""
    whole = Partition.load

    def load_less(self: Partition, piece: bytes) -> None:
        whole(self, piece)
        self.parked.clear()

    patch.setattr(Partition, "load", load_less)


def early_sweep(patch: pytest.MonkeyPatch) -> None:
    """Sends are dropped a minute before the last rule stops counting them."""
    patch.setattr(Capped, "horizon_ms", lambda rule: 60_000)


MUTANTS = (
    closed_window, one_too_many, lost_refunds, open_too_long, task_on_one_channel, level_off_by_one, any_line,
    no_signature, forgotten_parking, early_sweep,
)  # fmt: skip


@pytest.mark.parametrize("break_it", MUTANTS, ids=lambda mutant: mutant.__name__)
def test_a_wrong_system_is_found_out(break_it: Callable[[pytest.MonkeyPatch], None]) -> None:
    def wrong(data: list[bytes]) -> Pair:
        with pytest.MonkeyPatch.context() as patch:
            break_it(patch)
            return random_rules(data)

    with pytest.raises(Disagreement):
        explore(wrong, 6_000, derandomize=True, database=None, phases=[Phase.generate])
