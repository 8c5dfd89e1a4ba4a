"""The bench of limits: every request is counted once, a run repeats itself, what is possible is what was done."""

from pathlib import Path
from random import Random
from xml.etree import ElementTree as xml

import pytest

from bench.capacity import Demand, Moment, demands
from bench.limiters import CEILING, LIMITS
from bench.limits import DRAWN, HEAD, HEALTHY, SEED, Run, measure
from bench.share_chart import draw

USUAL = Moment(servers=8, service_s=0.05)
STEADY = Demand("steady", "half", [USUAL], 80.0, seconds=12.0)
THROTTLING = Moment(6.0, servers=8, service_s=0.05, most_in_air=6)
SICK = Demand(
    "sick", "hangs, then throttles", [USUAL, Moment(3.0, servers=0), THROTTLING], 80.0, 3.0, 6.0, 12.0, timeout_s=1.0
)


@pytest.mark.parametrize("name", LIMITS)
def test_every_request_is_counted_once(name: str) -> None:
    run = Run(SICK, LIMITS[name], Random(SEED))
    run.play()
    outcome = run.outcome(name)
    left = run._waiting + sum(sender.gate.in_flight for sender in run.senders)
    assert outcome.offered == outcome.done + outcome.timeouts + left
    assert sum(run.done) == outcome.done
    assert outcome.timeouts > 0 < outcome.throttled
    assert 0 < outcome.p50_s <= outcome.p99_s <= SICK.timeout_s


def test_a_fluid_does_what_can_be_done_and_nothing_that_was_not_asked() -> None:
    assert STEADY.possible(960) == pytest.approx(960)
    assert Demand("more", "", [USUAL], None, seconds=12.0).possible(0) == pytest.approx(160 * 12)
    assert SICK.possible(960) == pytest.approx(80 * 3 + 120 * 6), "nothing for 3 s, then what waited at 120 a second"


def test_a_run_repeats_itself_and_is_drawn(tmp_path: Path) -> None:
    outcomes, panel = measure(STEADY)
    assert (outcomes, panel) == measure(STEADY)
    assert all(outcome.part > 0.97 for outcome in outcomes)
    assert {line.name: line.values[0] for line in panel.lines}["fixed 32"] == 32 / CEILING
    draw(tmp_path / "limits.svg", [panel], HEAD)
    root = xml.parse(tmp_path / "limits.svg").getroot()
    assert root.findtext("{*}title") == HEAD
    assert len(root.findall(".//{*}path")) == len(LIMITS)
    assert {demand.name for demand in demands()} >= {*DRAWN, *HEALTHY}
