"""The retry budget: never exceeded, never stingier than it says, and nothing is lost while it waits."""

from random import Random

import hypothesis.strategies as st
import pytest
from hypothesis import given

from dispatcher.budget import RESERVE_PER_S, WINDOW_S, Retries, RetryBudget
from dispatcher.kinds import BULK, LANES, NORMAL, URGENT
from dispatcher.message import Message
from dispatcher.outbox import Outbox, Ticket
from dispatcher.receipt import ANSWERS, Receipt
from dispatcher.retry import URGENT_BACKOFF_MS, Done, next_step

START_MS = 1_700_000_000_000
RESERVE = 3


def ticket(number: int, lane: int = NORMAL, type_: str = "notice", ttl_ms: int = 60_000, line: str = "l") -> Ticket:
    message = Message(
        f"m{number}", "t", "u", "sms", "to", type_, 3, lane, line, "t", {}, {}, START_MS, START_MS, START_MS + ttl_ms
    )  # fmt: skip
    return Ticket(message, 0, b"", 1)


def failed(outbox: Outbox, n: int, lane: int = NORMAL, type_: str = "notice", ttl_ms: int = 60_000) -> list[Ticket]:
    """So many tickets whose first attempt failed just now."""
    some = [ticket(i, lane, type_, ttl_ms) for i in range(n)]
    outbox.expect(some)
    for one in some:
        one.owes = True
        outbox.later(one, START_MS)
    return some


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("later"), st.sampled_from([-1_500, 1, 400, 1_000, 4_000, 30_000])),
            st.tuples(st.just("first"), st.integers(1, 200)),
            st.tuples(st.just("retry"), st.integers(1, 60)),
        ),
        max_size=60,
    )
)
def test_retries_are_a_fifth_of_first_attempts_and_the_reserve_over_any_sequence(steps: list[tuple[str, int]]) -> None:
    budget, now_ms = RetryBudget(RESERVE), START_MS
    firsts: list[tuple[int, int]] = []  # (second, how many)
    retries: list[int] = []
    second = now_ms // 1000
    for what, n in steps:
        if what == "later":
            now_ms += n
        second = max(second, now_ms // 1000)
        if what == "first":
            budget.tried(n, now_ms)
            firsts.append((second, n))
        for _ in range(n if what == "retry" else 0):
            made = sum(n for at, n in firsts if at > second - WINDOW_S) / 5 + RESERVE * WINDOW_S
            spent = sum(at > second - WINDOW_S for at in retries)
            assert budget.left(now_ms) == max(int(made - spent), 0)
            paid = budget.pay(now_ms)
            assert paid == (spent + 1 <= made)
            if paid:
                retries.append(second)
    for at in {second for second, _ in firsts} | set(retries):
        window = range(at - WINDOW_S + 1, at + 1)
        assert sum(s in window for s in retries) <= sum(n for s, n in firsts if s in window) / 5 + RESERVE * WINDOW_S


@pytest.mark.parametrize("lane", range(len(LANES)))
def test_a_quiet_system_retries_at_the_reserve(lane: int) -> None:
    budget, paid = RetryBudget(RESERVE_PER_S[lane]), 0
    for ms in range(0, 60_000, 10):
        paid += budget.pay(START_MS + ms)
    assert paid == RESERVE_PER_S[lane] * 60


def test_all_that_was_in_the_air_goes_elsewhere_at_once_when_a_provider_dies() -> None:
    """2,000 codes a second and 400 in the air, as at an answer time of 200 ms, and with nothing but the traffic."""
    outbox, retries, now_ms = Outbox(100_000), Retries(), START_MS - 3_000
    for _ in range(30):
        retries.tried([URGENT] * 200, now_ms)
        now_ms += 100
    some = failed(outbox, 400, URGENT, "verification")
    retries.tried([URGENT] * 400, START_MS)
    [queue] = retries.wake(outbox, START_MS, Random(1))
    assert outbox.take(queue, 1_000) == some
    assert retries.counted() == [("urgent", 400, 0)]
    assert retries.counted() == []
    assert not any(one.owes for one in some)


def test_what_finds_no_budget_waits_until_there_is_some_or_it_expires() -> None:
    rng = Random(2)
    outbox, retries, now_ms = Outbox(100_000), Retries(), START_MS
    some = failed(outbox, 1_000)
    first = ticket(-1)  # not a retry: it owes nothing
    outbox.expect([first])
    outbox.later(first, START_MS)
    out: dict[str, int] = {}
    while outbox.waiting:
        for queue in retries.wake(outbox, now_ms, rng):
            for one in outbox.take(queue, 10_000):
                assert one.message.id not in out
                out[one.message.id] = now_ms - START_MS
        now_ms = outbox.next_ms or now_ms
    assert out.keys() == {one.message.id for one in [*some, first]}
    assert out["m-1"] == 0
    at_once = sum(ms == 0 for ms in out.values())
    assert at_once == 1 + RESERVE_PER_S[NORMAL] * WINDOW_S
    expired = [ms for ms in out.values() if ms >= 60_000]
    assert set(expired) == {60_000}, "an expired one comes through at once, for the veto to end it"
    assert sum(not one.owes for one in some) == len(some) - len(expired)
    assert 0 < len(some) - len(expired) <= RESERVE_PER_S[NORMAL] * 70
    [(lane, paid, delayed)] = retries.counted()
    assert (lane, paid, delayed) == ("normal", len(some) - len(expired), 1_000 - at_once + 1)


def test_lanes_do_not_pay_for_each_other() -> None:
    outbox, retries = Outbox(100_000), Retries()
    retries.tried([BULK] * 10_000, START_MS)
    failed(outbox, 1_000, NORMAL)
    retries.wake(outbox, START_MS, Random(3))
    assert retries.counted() == [("normal", 100, 900)]
    failed(outbox, 2_100, BULK)
    retries.wake(outbox, START_MS, Random(3))
    assert dict((lane, paid) for lane, paid, _ in retries.counted())["bulk"] == 2_100


def test_a_code_that_waits_for_budget_asks_again_within_seconds() -> None:
    outbox, retries = Outbox(1_000_000), Retries()
    failed(outbox, 60_000, URGENT, "verification", ttl_ms=300_000)
    retries.wake(outbox, START_MS, Random(4))
    assert outbox.waiting == 60_000 - 500
    assert sorted(at_ms - START_MS for at_ms, *_ in outbox._later)[-1] <= URGENT_BACKOFF_MS


@given(
    st.lists(
        st.one_of(
            st.tuples(st.sampled_from(ANSWERS), st.sampled_from(["p", "q"])),
            st.tuples(st.sampled_from(["transient", "refused"]), st.just("")),  # all that is said when nobody tried
        ),
        min_size=1, max_size=12,
    ),
    st.sampled_from(["verification", "notice", "marketing"]), st.integers(1, 3_000), st.integers(0, 80),
    st.integers(0, 2**32),
)  # fmt: skip
def test_a_message_has_ended_by_its_expiry_whatever_providers_say(
    answers: list[tuple[str, str]], type_: str, ttl_ms: int, answer_ms: int, seed: int
) -> None:
    """Its whole way, with a budget that others have used up: attempts, backoffs, waits for budget."""
    rng, outbox, retries, now_ms = Random(seed), Outbox(10), Retries(), START_MS
    while retries._budgets[NORMAL].pay(now_ms):
        pass
    one = ticket(0, NORMAL, type_, ttl_ms)
    outbox.add(one)
    expires_ms, written = one.message.expires_ms, []
    for step in range(2 * ttl_ms + 10):  # a step waits a millisecond at least, or takes what waited
        if not outbox.queues[one.queue]:
            assert outbox.next_ms is not None, "it neither waits nor is queued"
            assert now_ms <= outbox.next_ms <= expires_ms
            now_ms = outbox.next_ms
            retries.wake(outbox, now_ms, rng)
            continue
        [taken] = outbox.take(one.queue, 1)
        if now_ms >= expires_ms:
            break  # the veto ends it
        now_ms += answer_ms
        answer, provider = answers[step % len(answers)]
        if provider and answer != "refused":
            written.append(now_ms - answer_ms)
        said = next_step(Receipt("m0", answer, provider), type_, one.tries + 1, now_ms, expires_ms, rng, one.maybe_sent)
        if isinstance(said, Done):
            break
        assert now_ms <= said.at_ms < expires_ms
        if provider:
            one.tries, one.owes = one.tries + 1, True
            one.maybe_sent = one.maybe_sent or answer == "unknown"
        outbox.later(taken, said.at_ms)
    else:
        raise AssertionError("it never ended")
    assert now_ms <= expires_ms + answer_ms
    assert all(at < expires_ms for at in written)
    assert len(written) <= 1 + RESERVE_PER_S[NORMAL] * 10
