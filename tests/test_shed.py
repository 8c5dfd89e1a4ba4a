"""Who is turned away while a lane fills: the lowest level first, floods before trickles, no code for its level."""

from math import floor

import hypothesis.strategies as st
import pytest
from hypothesis import given

from dispatcher.intake import OVERLOAD_REASONS
from dispatcher.kinds import BULK, LANES, NORMAL, URGENT
from dispatcher.shed import FILLED, FULL, LEVEL, LINE, Entrance, Occupancy

LEVELS = range(1, 6)
lanes = st.integers(0, len(LANES) - 1)
names = st.sampled_from(["a", "b", "c"])
levels = st.integers(1, 5)
types = st.sampled_from(["verification", "notice"])


def filled(most: int, lane: int = NORMAL, **lines: int) -> Occupancy:
    """A lane with so many messages of each line."""
    occupancy = Occupancy(most)
    for line, n in lines.items():
        occupancy.take(lane, line, n)
    return occupancy


def flood(occupancy: Occupancy, level: int, *lines: str, lane: int = NORMAL) -> None:
    """As many of each line in turns as are let in."""
    while any(occupancy.room(lane, "notice", level, line) for line in lines):
        for line in lines:
            if occupancy.room(lane, "notice", level, line):
                occupancy.take(lane, line)


@given(
    st.integers(1, 30), st.lists(st.one_of(st.tuples(lanes, types, levels, names), st.integers(0, 99)), max_size=200)
)
def test_a_lane_is_never_over_its_bound_and_counts_what_is_there(most: int, steps: list[object]) -> None:
    occupancy = Occupancy(most)
    there: list[tuple[int, str]] = []
    for step in steps:
        if isinstance(step, tuple):
            lane, type_, level, line = step
            if occupancy.room(lane, type_, level, line):
                occupancy.take(lane, line)
                there.append((lane, line))
        elif there and isinstance(step, int):
            occupancy.give(*there.pop(step % len(there)))
        for lane in range(len(LANES)):
            mine = [line for at, line in there if at == lane]
            assert occupancy.counts[lane] == len(mine) <= most
            assert occupancy.lines[lane] == {line: mine.count(line) for line in mine}


@given(st.integers(1, 200), lanes, types, names, st.dictionaries(names, st.integers(1, 200)))
def test_what_a_level_gets_every_more_important_one_gets(
    most: int, lane: int, type_: str, line: str, lines: dict[str, int]
) -> None:
    occupancy = filled(most, lane, **lines)
    got = [occupancy.room(lane, type_, level, line) for level in LEVELS]
    assert got == sorted(got, reverse=True)
    assert all(occupancy.copy().room(lane, type_, level, line) == told for level, told in zip(LEVELS, got, strict=True))
    if lane == URGENT and type_ == "verification":
        free = most - sum(lines.values())
        assert got == [lines.get(line, 0) < 9 * free] * 5
    if sum(lines.values()) >= most:
        assert not any(got)


def test_one_lines_flood_of_codes_leaves_room_for_anothers_code() -> None:
    occupancy = Occupancy(1_000)
    while occupancy.room(URGENT, "verification", 1, "flood"):
        occupancy.take(URGENT, "flood")
    assert occupancy.counts[URGENT] == 900
    assert occupancy.why_not(URGENT, "verification", 1, "flood")[0] == LINE
    while occupancy.room(URGENT, "verification", 5, "other"):
        occupancy.take(URGENT, "other")
    assert occupancy.lines[URGENT]["other"] == 90


@pytest.mark.parametrize("level", LEVELS)
def test_a_line_alone_fills_nine_tenths_of_what_its_level_may(level: int) -> None:
    occupancy = Occupancy(10_000)
    flood(occupancy, level, "a")
    may = FILLED[level - 1] * 10_000
    assert occupancy.counts[NORMAL] == pytest.approx(0.9 * may, abs=2)
    assert occupancy.why_not(NORMAL, "notice", level, "a")[0] == LINE
    assert occupancy.room(NORMAL, "notice", level, "b")
    flood(occupancy, level, "b")
    assert occupancy.counts[NORMAL] < may


@pytest.mark.parametrize("n", [1, 2, 5])
def test_lines_that_flood_leave_room_for_anothers_trickle(n: int) -> None:
    """n lines at their bound leave 1 / (1 + n alpha) of it free."""
    occupancy = Occupancy(100_000)
    flood(occupancy, 3, *[f"line{i}" for i in range(n)])
    free = 90_000 - occupancy.counts[NORMAL]
    assert free == pytest.approx(90_000 / (1 + 9 * n), abs=n + 1)
    for _ in range(free // 2):  # while the floods go on
        flood(occupancy, 3, *[f"line{i}" for i in range(n)])
        assert occupancy.room(NORMAL, "notice", 3, "quiet")
        occupancy.take(NORMAL, "quiet")


def test_levels_go_one_after_the_other_and_the_last_words_are_outbox_full() -> None:
    seen = {}
    for percent in range(0, 101):
        occupancy = filled(100, NORMAL, **{f"line{i}": 1 for i in range(percent)})
        for level in LEVELS:
            if level not in seen and not occupancy.room(NORMAL, "notice", level, "new"):
                seen[level] = percent, occupancy.why_not(NORMAL, "notice", level, "new")
    assert seen == {
        5: (70, (LEVEL, 1)), 4: (80, (LEVEL, 1)), 3: (90, (LEVEL, 1)), 2: (95, (LEVEL, 1)), 1: (100, (FULL, 1)),
    }  # fmt: skip
    assert {FULL, LEVEL, LINE} <= OVERLOAD_REASONS


@given(st.integers(1, 500), levels, st.integers(1, 600))
def test_a_line_alone_finds_room_when_as_many_have_ended_as_it_was_told(most: int, level: int, n: int) -> None:
    occupancy = filled(most, BULK, a=n)
    if occupancy.room(BULK, "notice", level, "a"):
        return
    why, above = occupancy.why_not(BULK, "notice", level, "a")
    assert why == (FULL if n >= most else why)
    ended = 0
    while not occupancy.room(BULK, "notice", level, "a"):
        occupancy.give(BULK, "a")
        ended += 1
    assert ended in (floor(above + 1e-9), floor(above + 1e-9) + 1)


def test_one_call_counts_what_it_was_let_in_and_what_it_parked() -> None:
    occupancy = Occupancy(100)
    entrance = Entrance(occupancy, parking=3)
    told = []
    for i in range(200):
        why = entrance.refuse(NORMAL, "notice", 1, f"line{i}")
        told.append(why)
        if why is None:
            entrance.let_in(NORMAL, f"line{i}", 1, parked=0)
    assert told == [None] * 100 + [FULL] * 100
    assert entrance.refused == {(NORMAL, 1, FULL): 100}
    assert entrance.turn() == {NORMAL: 1.0}
    assert occupancy.counts == [0, 0, 0], "the call's own count, until its messages join"
    for _ in range(3):
        assert entrance.refuse_parking(BULK, 5) is None
        entrance.let_in(BULK, "a", 0, parked=1)
    assert entrance.refuse_parking(BULK, 5) == FULL
    assert entrance.turn() == {BULK: float("inf")}
    assert entrance.turn() == {}
