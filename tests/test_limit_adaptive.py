"""The senders' limit: within its bounds whatever happens, down on drops, up again when they end, deaf to noise."""

from collections.abc import Callable
from math import exp
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.capacity import Demand, Moment
from bench.limiters import CEILING, LIMITS, START, Aimd, Gradient2
from bench.limits import Run
from channels.adapter import NotWritten, Written
from dispatcher.adaptive import ENOUGH, FLOOR, Adaptive
from dispatcher.documents import Provider
from dispatcher.limit import LANE_SHARES, Gate, Limit, Sample, most
from tests.actors.test_sender import World, play

Bounded = Adaptive | Aimd | Gradient2
KINDS: list[Callable[[int], Bounded]] = [Adaptive, Aimd, Gradient2]
SEED = 20

samples = st.lists(
    st.tuples(st.floats(0, 60), st.integers(1, 5_000), st.booleans(), st.integers(1, 60)), max_size=60
)  # seconds, in flight, dropped, and how many of the kind


def fed(limit: Limit, n: int, seconds: float = 0.1, dropped: bool = False, used: float = 1.0) -> None:
    """`n` samples alike, of requests that began with a part of the limit in the air."""
    for _ in range(n):
        limit.sampled(seconds, max(round(limit.value * used), 1), dropped)


def waned(ceiling: int, value: int) -> Adaptive:
    """A limit that time-outs have brought down to `value` at a provider that answers in 0.1 s."""
    limit = Adaptive(ceiling)
    fed(limit, 200)
    while limit.value > value:
        limit.sampled(5.0, limit.value, True)
    return limit


@pytest.mark.parametrize("kind", KINDS)
@given(st.integers(1, 4_096), samples)
def test_it_stays_within_its_bounds(
    kind: Callable[[int], Bounded], ceiling: int, samples: list[tuple[float, int, bool, int]]
) -> None:
    limit = kind(ceiling)
    for seconds, in_flight, dropped, n in samples:
        for _ in range(n):
            limit.sampled(seconds, in_flight, dropped)
            assert min(FLOOR, ceiling) <= limit.floor <= limit.value <= limit.ceiling == ceiling


@given(st.integers(1, 64), st.integers(0, 2**32))
def test_no_more_are_in_the_air_than_the_limit_was_when_they_began(ceiling: int, seed: int) -> None:
    rng = Random(seed)
    gate = Gate(Adaptive(ceiling))
    out: list[Sample] = []
    for step in range(300):
        share = rng.choice(LANE_SHARES)
        sample = gate.enter(float(step), share)
        assert (sample is None) == (len(out) >= most(gate.limit.value, share))
        if sample is not None:
            out.append(sample)
        while out and rng.random() < 0.6:
            ended = out.pop(rng.randrange(len(out)))
            rng.choice([ended.success, ended.success, ended.dropped])(step + rng.random())
        assert gate.in_flight == len(out) <= ceiling


@given(st.integers(1, 4_096), samples)
def test_a_drop_never_raises_it_and_a_limits_worth_of_them_takes_half(
    ceiling: int, samples: list[tuple[float, int, bool, int]]
) -> None:
    limit = Adaptive(ceiling)
    for seconds, in_flight, dropped, _ in samples:
        limit.sampled(seconds, in_flight, dropped)
    limit.sampled(5.0, limit.value, True)
    for _ in range(3):
        before = limit.value
        fed(limit, before, 5.0, dropped=True)
        assert max(limit.floor, before // 2 - 1) <= limit.value <= max(limit.floor, before // 2 + 1)


@given(st.integers(1, 4_096), samples, st.lists(st.floats(0, 60), max_size=60))
def test_latency_alone_never_lowers_a_limit_that_is_used_and_was_tested(
    ceiling: int, samples: list[tuple[float, int, bool, int]], latencies: list[float]
) -> None:
    limit = Adaptive(ceiling)
    limit.sampled(5.0, 1, True)
    for seconds, in_flight, dropped, _ in samples:
        limit.sampled(seconds, in_flight, dropped)
    for seconds in latencies:
        before = limit.value
        limit.sampled(seconds, before, False)
        assert limit.value >= before


def test_the_owners_figure_holds_until_something_contradicts_it() -> None:
    for ceiling in (1, 3, 32, 1_112):
        limit = Adaptive(ceiling)
        assert limit.value == ceiling
        fed(limit, 5_000)
        assert limit.value == ceiling, "used, and no queue"
    limit = Adaptive(1_112)
    limit.sampled(5.0, 1_000, True)
    assert limit.value == ENOUGH - 1
    queue = Adaptive(1_112)
    fed(queue, 20)
    fed(queue, 20, 0.5)
    assert queue.value == ENOUGH


def test_what_nobody_uses_goes_but_not_below_enough() -> None:
    limit = Adaptive(256)
    fed(limit, 800, used=0.1)
    assert 150 <= limit.value <= 160
    fed(limit, 5_000, used=0.1)
    assert limit.value == ENOUGH
    small = Adaptive(8)
    fed(small, 5_000, used=0.1)
    assert small.value == 8


@pytest.mark.parametrize(("ceiling", "within"), [(32, 200), (256, 1_200), (1_112, 5_000)])
def test_it_is_back_at_its_ceiling_soon_after_time_outs_end(ceiling: int, within: int) -> None:
    """A quarter for every success: about four times the ceiling in all."""
    limit = waned(ceiling, FLOOR)
    assert limit.value == FLOOR
    fed(limit, within)
    assert limit.value == ceiling


def test_it_does_not_grow_while_it_is_not_used() -> None:
    limit = waned(256, 10)
    fed(limit, 5_000, used=0.3)
    assert limit.value == 10


def test_it_stays_near_where_it_was_throttled_for_a_while() -> None:
    limit = waned(256, 30)
    limit.sampled(0.01, limit.value, True)
    fed(limit, 8 * limit.value)
    assert limit.value in (29, 30, 31), "eight limits' worth later"
    fed(limit, 100_000)
    assert limit.value == 256


def test_it_grows_slowly_while_there_is_a_queue() -> None:
    queue, none = waned(256, 30), waned(256, 30)
    fed(queue, 40, 0.5)
    before = queue.value
    fed(queue, 8 * before, 0.5)
    assert queue.value - before in (0, 1, 2)
    fed(none, 40 + 8 * before)
    assert none.value > 3 * before


@pytest.mark.parametrize("spread", [0.35, 1.2])
def test_noise_and_a_stray_time_out_leave_a_healthy_provider_its_room(spread: float) -> None:
    rng = Random(SEED)
    limit = Adaptive(32)
    least = 32
    for _ in range(50_000):
        lost = rng.random() < 0.002
        seconds = 5.0 if lost else 0.1 * exp(rng.gauss(-spread * spread / 2, spread))
        limit.sampled(seconds, max(int(limit.value * 0.8), 1), lost)
        least = min(least, limit.value)
    print(f"seed {SEED}: never below {least}")
    assert least >= 28


BROWNOUT = Demand(
    "brownout", "20 times slower", [Moment(), Moment(5.0, service_s=2.0), Moment(17.0)], None, 5.0, 17.0, 25.0
)


def test_over_a_brownout_with_more_asked_than_can_be_done() -> None:
    found = {}
    for name in ("fixed 256", "AIMD", "gradient2", "ours"):
        run = Run(BROWNOUT, LIMITS[name], Random(SEED))
        run.play()
        found[name] = run.outcome(name)
        assert all(gate.in_flight <= CEILING for gate in (sender.gate for sender in run.senders))
    ours = found["ours"]
    print(f"seed {SEED}: {found}")
    assert ours.timeouts * 10 < found["fixed 256"].timeouts
    assert ours.part > 0.9
    assert ours.back_s is not None
    assert ours.back_s <= 3.0


def test_a_hang_is_learned_from_time_outs_alone() -> None:
    hang = Demand("hang", "no answers", [Moment(servers=0)], None, seconds=30.0, timeout_s=1.0)
    run = Run(hang, LIMITS["ours"], Random(SEED))
    run.play()
    assert run.limits[1] == 3 * CEILING, "before the first time-out"
    assert run.limits[-1] == 3 * FLOOR
    assert len(run.took_s) == 0 < run.timeouts


def test_a_senders_load_shows_what_it_learned_and_a_new_document_gets_a_new_chance() -> None:
    async def script(world: World) -> None:
        world.peer.breaks = Written("timeout")
        for k in range(8):
            await world.send([f"t{k}"])
        assert (await world.send([])).load.limit == 4
        world.peer.breaks = NotWritten("refused")
        await world.send(["r"])
        assert (await world.send([])).load.limit == 4, "nothing was written, nothing is learned"
        world.change(Provider("webhook", "sms", max_batch=1, concurrency=9))
        assert (await world.send([])).load.limit == 9

    play(script, max_batch=1, concurrency=8)


def test_a_replaced_limit_hears_what_began_under_it() -> None:
    gate = Gate(Adaptive(8))
    old = gate.enter(0.0)
    gate.limit = new = Adaptive(16)
    young = gate.enter(0.0)
    assert old is not None
    assert young is not None
    for sample in (old, young):
        sample.dropped(5.0)
    assert new.value == 15, "one time-out, not two"


def test_what_it_is_compared_with() -> None:
    aimd = Aimd(256)
    assert aimd.value == START
    fed(aimd, START)
    assert aimd.value == START, "all but one"
    fed(aimd, 2)
    assert aimd.value == START + 1
    fed(aimd, 15, 5.0, dropped=True)
    assert aimd.value == 18, "once for all that was in the air"
    gradient = Gradient2(256)
    fed(gradient, 2_000)
    grown = gradient.value
    assert grown > 2 * START
    fed(gradient, 200, 1.0)
    assert gradient.value < grown
