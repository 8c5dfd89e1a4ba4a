"""The routing benchmark: its figures mean what they say, a recorded trace plays like a synthetic one."""

from pathlib import Path
from random import Random
from xml.etree import ElementTree as xml

import msgspec
import pytest

from bench.policies import POLICIES
from bench.routing import SEED, Run, _turns, measure
from bench.share_chart import draw
from bench.traces import Moment, Scenario, Trace, recorded, scenarios

SHORT = Scenario(
    "brownout", "x20", {"a": Trace([Moment(0, 0.05), Moment(4, 1.0), Moment(8, 0.05)]), "b": Trace([Moment(0, 0.05)])},
    4.0, 8.0, 12.0, 50.0,
)  # fmt: skip


def test_turns_are_counted_from_the_last_extreme() -> None:
    assert _turns([0.3, 0.3, 0.31, 0.29], 0.15) == 0
    assert _turns([0.3, 0.0, 0.0, 0.3], 0.15) == 1
    assert _turns([0.3, 0.25, 0.2, 0.15, 0.1], 0.15) == 0, "a slope does not turn"
    assert _turns([0.3, 0.1, 0.3, 0.1, 0.3], 0.15) == 3


@pytest.mark.parametrize("name", POLICIES)
def test_every_policy_settles_every_message_and_counts_it_once(name: str) -> None:
    run = Run(SHORT, POLICIES[name]({"a": 0.045, "b": 0.045}, Random(SEED)), Random(SEED))
    run.play()
    outcome = run.outcome(name)
    assert outcome.lost == 0
    assert outcome.messages == len(run.messages) > 500
    assert outcome.cost == pytest.approx(0.045 * outcome.messages, abs=0.01)
    assert sum(sum(of_bin.values()) for of_bin in run.bins) == outcome.messages + outcome.errors


def test_a_run_repeats_itself() -> None:
    assert measure(SHORT)[0] == measure(SHORT)[0]


def test_a_recorded_trace_plays_like_a_synthetic_one(tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    path.write_bytes(msgspec.json.encode(SHORT))
    assert recorded(path) == SHORT
    path.write_bytes(b'{"name": 5}')
    with pytest.raises(msgspec.ValidationError):
        recorded(path)


def test_the_picture_has_a_line_for_every_policy(tmp_path: Path) -> None:
    _, panel = measure(SHORT)
    draw(tmp_path / "shares.svg", [panel, panel, panel])
    root = xml.parse(tmp_path / "shares.svg").getroot()
    assert len(root.findall(".//{*}path")) == 3 * len(POLICIES)
    assert {scenario.name for scenario in scenarios()} >= {
        "brownout",
        "blackout",
        "flapping",
        "throttling",
        "decay",
        "price",
    }
