"""The gate never lets more in than the limit, and every sample ends once."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.limit import LANE_SHARES, Fixed, Gate, Sample, most


class Heard:
    """A limit that writes down its samples."""

    def __init__(self, value: int) -> None:
        self.value = value
        self.samples: list[tuple[float, int, bool]] = []

    def sampled(self, seconds: float, in_flight: int, dropped: bool) -> None:
        self.samples.append((seconds, in_flight, dropped))


def entered(gate: Gate, now_s: float = 0.0) -> Sample:
    sample = gate.enter(now_s)
    assert sample is not None
    return sample


def test_three_endings_and_what_the_limit_hears() -> None:
    limit = Heard(3)
    gate = Gate(limit)
    one, two, three = entered(gate), entered(gate, 1.0), entered(gate, 2.0)
    assert gate.enter(2.0) is None
    one.success(3.0)
    two.dropped(3.0)
    three.ignored()
    assert limit.samples == [(3.0, 1, False), (2.0, 2, True)]
    assert gate.in_flight == 0


@pytest.mark.parametrize("second", ["success", "dropped", "ignored"])
def test_a_sample_ends_once(second: str) -> None:
    gate = Gate(Fixed(2))
    sample = entered(gate)
    sample.ignored()
    with pytest.raises(RuntimeError):
        getattr(sample, second)(*([] if second == "ignored" else [1.0]))
    assert gate.in_flight == 0


def test_a_lane_leaves_the_rest_to_the_lanes_before_it() -> None:
    assert [most(10, share) for share in LANE_SHARES] == [10, 9, 8]
    assert [most(1, share) for share in LANE_SHARES] == [1, 1, 1]
    assert [most(0, share) for share in LANE_SHARES] == [0, 0, 0]


@given(st.integers(0, 12), st.lists(st.tuples(st.sampled_from(LANE_SHARES), st.integers(0, 3)), max_size=80))
def test_in_flight_never_over(limit: int, steps: list[tuple[float, int]]) -> None:
    gate = Gate(Fixed(limit))
    out: list[Sample] = []
    for share, step in steps:
        if step == 0 and out:
            out.pop().ignored()
        else:
            sample = gate.enter(0.0, share)
            assert (sample is None) == (len(out) >= most(limit, share))
            if sample is not None:
                out.append(sample)
        assert gate.in_flight == len(out) <= limit
