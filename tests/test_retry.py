"""What follows a receipt, over every receipt there can be."""

from random import Random

import hypothesis.strategies as st
import pytest
from hypothesis import given

from dispatcher.kinds import TYPES
from dispatcher.receipt import ANSWERS, OUTCOMES, Answer, Receipt
from dispatcher.retry import (
    FIRST_BACKOFF_MS,
    MOST_BACKOFF_MS,
    NOBODY_MS,
    URGENT_BACKOFF_MS,
    Done,
    Retry,
    next_step,
)

NOW_MS = 1_000_000
receipts = st.builds(Receipt, st.just("m"), st.sampled_from(ANSWERS), st.sampled_from(["", "p"]))
types = st.sampled_from(list(TYPES))
attempts = st.integers(1, 10_000)
lives_ms = st.integers(-10, 100_000)
seeds = st.integers(0, 2**32)


def step(answer: Answer, type_: str = "notice", attempt: int = 1, life_ms: int = 60_000, **how: bool) -> Done | Retry:
    return next_step(Receipt("m", answer, "p"), type_, attempt, NOW_MS, NOW_MS + life_ms, Random(1), **how)


@given(receipts, types, attempts, lives_ms, seeds, st.booleans())
def test_a_slot_that_may_be_used_is_never_given_back(
    receipt: Receipt, type_: str, attempt: int, life_ms: int, seed: int, maybe_sent: bool
) -> None:
    next_ = next_step(receipt, type_, attempt, NOW_MS, NOW_MS + life_ms, Random(seed), maybe_sent)
    if isinstance(next_, Done):
        assert next_.outcome in OUTCOMES
        if maybe_sent or receipt.answer in ("accepted", "unknown"):
            assert not next_.refund
        if next_.refund:
            assert next_.outcome in ("failed", "expired")
        if maybe_sent:
            assert next_.outcome in ("sent", "unknown")
        assert (next_.outcome == "sent") == (receipt.answer == "accepted")


@given(receipts, types, attempts, lives_ms, seeds, st.booleans())
def test_nothing_is_scheduled_at_or_after_its_expiry_or_in_the_past(
    receipt: Receipt, type_: str, attempt: int, life_ms: int, seed: int, maybe_sent: bool
) -> None:
    next_ = next_step(receipt, type_, attempt, NOW_MS, NOW_MS + life_ms, Random(seed), maybe_sent)
    if isinstance(next_, Retry):
        assert NOW_MS <= next_.at_ms < NOW_MS + life_ms
        assert next_.at_ms - NOW_MS <= MOST_BACKOFF_MS
        assert receipt.answer not in ("accepted", "rejected", "invalid_recipient")
        assert next_.elsewhere == (receipt.answer != "refused")


@given(receipts, types, attempts, lives_ms, seeds, st.booleans())
def test_the_same_chance_gives_the_same_step(
    receipt: Receipt, type_: str, attempt: int, life_ms: int, seed: int, maybe_sent: bool
) -> None:
    one, other = (
        next_step(receipt, type_, attempt, NOW_MS, NOW_MS + life_ms, Random(seed), maybe_sent) for _ in range(2)
    )
    assert one == other


@pytest.mark.parametrize(
    ("answer", "first", "after_unknown"),
    [
        ("accepted", Done("sent"), Done("sent")),
        ("rejected", Done("failed", refund=True), Done("unknown")),
        ("invalid_recipient", Done("failed", refund=True), Done("unknown")),
        ("unknown", Done("unknown"), Done("unknown")),
        ("transient", Retry(NOW_MS, elsewhere=True), Retry(NOW_MS, elsewhere=True)),
        ("throttled", Retry(NOW_MS, elsewhere=True), Retry(NOW_MS, elsewhere=True)),
        ("auth", Retry(NOW_MS, elsewhere=True), Retry(NOW_MS, elsewhere=True)),
        ("refused", Retry(NOW_MS + 20, elsewhere=False), Retry(NOW_MS + 20, elsewhere=False)),
    ],
)
def test_the_table_of_answers(answer: Answer, first: Done | Retry, after_unknown: Done | Retry) -> None:
    assert step(answer) == first
    assert step(answer, maybe_sent=True) == after_unknown


@pytest.mark.parametrize("type_", list(TYPES))
def test_only_a_verification_goes_out_again_after_unknown_and_only_once(type_: str) -> None:
    once = type_ == "verification"
    assert step("unknown", type_) == (Retry(NOW_MS, elsewhere=True) if once else Done("unknown"))
    assert step("unknown", type_, attempt=2, maybe_sent=True) == Done("unknown")
    assert step("unknown", type_, life_ms=0) == Done("unknown")


@pytest.mark.parametrize("attempt", [2, 3, 5, 9, 50])
def test_backoff_has_full_jitter_below_a_doubling_ceiling(attempt: int) -> None:
    rng, ceiling = Random(5), min(FIRST_BACKOFF_MS * 2 ** (attempt - 2), MOST_BACKOFF_MS)
    waits = []
    for _ in range(400):
        next_ = next_step(Receipt("m", "transient", "p"), "notice", attempt, 0, 10**9, rng)
        assert isinstance(next_, Retry)
        waits.append(next_.at_ms)
    assert 1 <= min(waits) < ceiling * 0.05 + 2
    assert ceiling * 0.95 < max(waits) <= ceiling
    assert 0.4 * ceiling < sum(waits) / len(waits) < 0.6 * ceiling


@pytest.mark.parametrize(
    ("type_", "waiting", "most_ms"),
    [
        ("notice", 0, NOBODY_MS),
        ("notice", 10_000, NOBODY_MS),
        ("notice", 100_000, 5_000),
        ("notice", 10**7, MOST_BACKOFF_MS),
        ("verification", 10**7, URGENT_BACKOFF_MS),
    ],
)
@pytest.mark.parametrize("attempt", [1, 2, 50])
def test_where_nobody_was_there_to_try_the_wait_depends_on_the_crowd_alone(
    type_: str, waiting: int, most_ms: int, attempt: int
) -> None:
    rng, nobody = Random(5), Receipt("m", "transient", "", code="no_provider")
    waits = []
    for _ in range(400):
        next_ = next_step(nobody, type_, attempt, 0, 10**9, rng, waiting=waiting)
        assert isinstance(next_, Retry)
        waits.append(next_.at_ms)
    assert 1 <= min(waits) < most_ms * 0.05 + 2
    assert most_ms * 0.95 < max(waits) <= most_ms


def test_what_would_wait_past_its_expiry_ends_now() -> None:
    assert step("transient", life_ms=0) == Done("expired", refund=True)
    assert step("transient", life_ms=0, maybe_sent=True) == Done("unknown")
    assert step("refused", life_ms=20) == Done("expired", refund=True)
    assert step("refused", life_ms=21) == Retry(NOW_MS + 20, elsewhere=False)
