"""The fold against a naive model: whatever is admitted, settled, refunded, snapshotted, crashed and replayed, in any
order, the live state decides as a list of every send ever made would, and equals the state rebuilt from the log."""

from dataclasses import dataclass, field

import hypothesis.strategies as st
from hypothesis import given, settings

from dispatcher.entries import End, Settle, decode_entry, encode_entry
from dispatcher.partition import Partition
from dispatcher.rulebook import Rulebook
from dispatcher.user import events_of
from tests.worlds import World

CAP_S, FREQUENCY_S, REPEAT_S, WINDOW_S = 60, 90, 20, 200
RULES = [
    {"kind": "frequency", "name": "sales", "limit": 1, "window_s": FREQUENCY_S},
    {"kind": "line_cap", "name": "line", "limit": 2, "window_s": CAP_S, "channels": ["sms"]},
    {"kind": "company_cap", "name": "company", "limit": 3, "window_s": CAP_S, "channels": ["sms"]},
    {"kind": "repeat", "name": "repeat", "window_s": REPEAT_S},
]


@dataclass
class Sent:
    """One send as a person would note it down."""

    at_s: float
    trigger: tuple[str, str]
    line: str
    marketing: bool
    text: str
    counted: bool = True


@dataclass
class Naive:
    """Keeps everything for ever, and looks at all of it every time."""

    sends: list[Sent] = field(default_factory=list)
    answered: dict[tuple[str, str], float] = field(default_factory=dict)

    def answer(self, now_s: float, trigger: tuple[str, str], line: str, marketing: bool, text: str) -> str:
        if trigger in self.answered and now_s - self.answered[trigger] < WINDOW_S:
            return "duplicate"
        recent = [s for s in self.sends if s.counted]
        blocked = None
        if marketing and sum(s.marketing and now_s - s.at_s < FREQUENCY_S for s in recent) >= 1:
            blocked = "filtered frequency"
        elif sum(s.line == line and now_s - s.at_s < CAP_S for s in recent) >= 2:
            blocked = "intercepted line_cap"
        elif sum(now_s - s.at_s < CAP_S for s in recent) >= 3:
            blocked = "intercepted company_cap"
        elif any(s.text == text and now_s - s.at_s < REPEAT_S for s in recent):
            blocked = "intercepted repeat"
        self.answered[trigger] = now_s
        if blocked is None:
            self.sends.append(Sent(now_s, trigger, line, marketing, text))
        return blocked or "accepted"


users = st.sampled_from(["u1", "u2"])
submits = st.tuples(
    st.just("submit"), users, st.sampled_from(["wallet", "loan"]), st.booleans(), st.integers(0, 3), st.integers(0, 30)
)
others = st.sampled_from([("sent",), ("failed",), ("snapshot",), ("crash",), ("sweep",)])
waits = st.tuples(st.just("wait"), st.sampled_from([1, 19_999, 20_000, 59_999, 60_000, 90_000, 199_999, 200_000]))


class Run:
    """The system under test beside its model."""

    def __init__(self) -> None:
        self.world = World(RULES)
        self.world.partition = self._empty()
        self.models = {"u1": Naive(), "u2": Naive()}
        self.snapshot: list[bytes] = []
        self.tail = 0  # entries of the log that the snapshot holds

    def _empty(self) -> Partition:
        return Partition(3, Rulebook(self.world.catalog.rules), WINDOW_S * 1000)

    def submit(self, user: str, line: str, marketing: bool, text: int, trigger: int) -> None:
        world = self.world
        name = f"{line}-{marketing}-{trigger}"
        order = (
            world.order("sale", user, line, id=name, params={"what": str(text)})
            if marketing
            else world.order("notice", user, line, id=name, params={"order": str(text), "amount": "1"})
        )
        rendered = f"{marketing} {text}"
        expected = self.models[user].answer(world.now_ms / 1000, (line, name), line, marketing, rendered)
        assert world.decided(order) == expected

    def settle(self, outcome: str) -> None:
        world = self.world
        if not world.partition.in_flight:
            return
        message = next(iter(world.partition.in_flight.values()))
        refund = outcome == "failed"
        world.write(Settle(world.now_ms, [End(message.id, outcome, refund)]))
        if refund:
            sends = self.models[message.identity].sends
            mine = [s for s in sends if s.trigger == (message.line, message.trigger) and s.counted]
            mine[-1].counted = False

    def take_snapshot(self) -> None:
        self.snapshot, self.tail = list(self.world.partition.slices(2)), len(self.world.log)

    def rebuilt(self) -> Partition:
        partition = self._empty()
        for piece in self.snapshot:
            partition.load(piece)
        for entry in self.world.log[self.tail :]:
            partition.apply(decode_entry(encode_entry(entry)))
        return partition

    def crash(self) -> None:
        live, rebuilt = self.world.partition, self.rebuilt()
        assert rebuilt.in_flight == live.in_flight
        assert remembered(rebuilt, self.world.now_ms) == remembered(live, self.world.now_ms)
        self.world.partition = rebuilt

    def sweep(self) -> None:
        partition = self.world.partition
        partition.sweep(list(partition.users), self.world.now_ms)


def remembered(partition: Partition, now_ms: int) -> dict[str, list[object]]:
    """What still matters of every user, in words instead of a partition's own numbers."""
    users = {}
    for user, packed in partition.users.items():
        events = events_of(partition.pruned(packed, now_ms))
        if events:
            users[user] = [(e.key, e.at_ms, partition.kinds[e.kind], e.content, e.state) for e in events]
    return users


def play(steps: list[tuple[object, ...]]) -> Run:
    run = Run()
    for name, *values in steps:
        if name == "submit":
            run.submit(*values)  # type: ignore[arg-type]
        elif name == "wait":
            run.world.now_ms += values[0]  # type: ignore[operator]
        elif name in ("sent", "failed"):
            run.settle(str(name))
        else:
            {"snapshot": run.take_snapshot, "crash": run.crash, "sweep": run.sweep}[str(name)]()
    return run


@given(st.lists(st.one_of(submits, submits, submits, others, waits), max_size=60))
@settings(max_examples=max(400, settings.default.max_examples))
def test_the_fold_decides_as_the_naive_model(steps: list[tuple[object, ...]]) -> None:
    run = play(steps)
    live, rebuilt = run.world.partition, run.rebuilt()
    assert rebuilt.in_flight == live.in_flight
    assert remembered(rebuilt, run.world.now_ms) == remembered(live, run.world.now_ms)


def test_the_model_finds_a_forgotten_refund() -> None:
    """The comparison can fail: a fold that loses a refund answers otherwise than the model."""
    run = Run()
    for n in range(2):
        run.submit("u1", "wallet", False, n, n)
    run.models["u1"].sends[0].counted = False
    try:
        run.submit("u1", "wallet", False, 9, 9)
    except AssertionError:
        return
    raise AssertionError("the model and a wrong fold agreed")
