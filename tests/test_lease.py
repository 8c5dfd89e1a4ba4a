"""The senders of a pool never write more than the quota together, whatever is lost, late, dead or born again."""

from collections.abc import Callable
from math import inf
from random import Random
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dispatcher.kinds import BULK, URGENT
from dispatcher.lease import RENEW_S, SLACK_S, TTL_S, Borrower, Claim, Lease, Lender, fair, outlived_s
from dispatcher.quota import Quota, whole
from tests.test_quota import busiest

STEP_S: Final = 0.02


class Chaos:
    """What goes wrong, as chances."""

    def __init__(self, lost: float = 0.0, late_s: float = 0.0, deaths_per_s: float = 0.0, slow: float = 0.0) -> None:
        self.lost = lost
        self.late_s = late_s
        self.deaths_per_s = deaths_per_s
        self.slow = slow  # requests that take up to 5 s before they are written


class Process:
    """One life of a sender; its clock began at some time of its own."""

    def __init__(self, pool: "Pool", number: int, first: bool) -> None:
        self.pool, self.number = pool, number
        self.offset_s = pool.rng.uniform(0, 1e6)
        self.quota = Quota(pool.rate, self.clock_s())
        self.borrower = Borrower(pool.rng.getrandbits(63))
        total, period_s = whole(pool.rate)
        settled_s = -inf if first else self.clock_s() + outlived_s(period_s)
        self.lender = Lender(total, period_s, settled_s) if number == 0 else None
        self.asks_at_s = pool.now_s
        self.requests: list[tuple[float, int, int]] = []  # granted, to be written at, n, in this term
        self.dead = False

    def clock_s(self) -> float:
        return self.pool.now_s + self.offset_s

    def step(self, wanted: int) -> None:
        pool, rng = self.pool, self.pool.rng
        if pool.now_s >= self.asks_at_s:
            self.asks_at_s = pool.now_s + RENEW_S
            claim = self.borrower.claim(self.quota, self.clock_s())
            pool.carry(lambda: pool.ask(self, claim), self.number == 0)
        for request in [r for r in self.requests if r[0] <= pool.now_s]:
            self.requests.remove(request)
            self.write(*request[1:])
        n = self.quota.grant(wanted, self.clock_s(), rng.choice([URGENT, BULK]))
        if n < wanted:
            self.borrower.ran_short(self.quota)
        if n:
            delay_s = rng.uniform(0, 5.0) if rng.random() < pool.chaos.slow else 0.0
            self.requests.append((pool.now_s + delay_s, n, self.quota.term))

    def write(self, n: int, term: int) -> None:
        if term != self.quota.term or not self.quota.valid(self.clock_s()):
            self.quota.undo(n)
            return
        late_s = self.pool.rng.choice([0.0, SLACK_S])
        self.pool.writes.append((self.pool.now_s + self.pool.rng.uniform(0, late_s), n))
        self.quota.wrote(n, self.clock_s() + late_s)

    def take(self, lease: Lease) -> None:
        if not self.dead:
            self.borrower.take(lease, self.quota, self.clock_s())


class Pool:
    """Senders, what they send each other, and when they wrote how much."""

    def __init__(self, rate: float, senders: int, rng: Random, chaos: Chaos) -> None:
        self.rate, self.rng, self.chaos = rate, rng, chaos
        self.now_s = 0.0
        self.writes: list[tuple[float, int]] = []
        self.mail: list[tuple[float, Callable[[], None]]] = []
        self.members: list[Process | None] = [Process(self, n, first=True) for n in range(senders)]

    def carry(self, what: Callable[[], None], at_home: bool = False) -> None:
        if at_home:
            what()
        elif self.rng.random() >= self.chaos.lost:
            self.mail.append((self.now_s + self.rng.uniform(0, self.chaos.late_s), what))

    def ask(self, process: Process, claim: Claim) -> None:
        lender = self.members[0]
        if lender is not None and lender.lender is not None:
            lease = lender.lender.lend(claim, lender.clock_s())
            self.carry(lambda: process.take(lease), process is lender)

    def kill(self, number: int, away_s: float) -> None:
        process = self.members[number]
        if process is not None:
            process.dead = True
            self.members[number] = None
            self.mail.append((self.now_s + away_s, lambda: self.revive(number)))

    def revive(self, number: int) -> None:
        self.members[number] = Process(self, number, first=False)

    def run(self, seconds: float, wanted: Callable[[int], int] = lambda _: 1000) -> None:
        until_s = self.now_s + seconds
        while self.now_s < until_s:
            self.now_s += STEP_S
            due = [letter for letter in self.mail if letter[0] <= self.now_s]
            self.mail = [letter for letter in self.mail if letter[0] > self.now_s]
            for _, deliver in sorted(due, key=lambda letter: letter[0]):
                deliver()
            for number, process in enumerate(self.members):
                if self.rng.random() < self.chaos.deaths_per_s * STEP_S:
                    self.kill(number, self.rng.uniform(0.1, 4.0))
                elif process is not None:
                    process.step(wanted(number))

    def wrote(self, since_s: float, until_s: float = inf) -> int:
        return sum(n for at_s, n in self.writes if since_s <= at_s < until_s)

    def shares(self) -> list[int]:
        return [p.quota.share if p and p.quota.valid(p.clock_s()) else 0 for p in self.members]

    def check(self) -> None:
        total, period_s = whole(self.rate)
        assert busiest(sorted(self.writes), period_s) <= total


@settings(max_examples=60)
@given(
    st.sampled_from([0.2, 1.0, 3.0, 7.5, 50.0]),
    st.integers(1, 5),
    st.builds(  # seeded, since a draw for each of its chances would be far too much for hypothesis
        Chaos,
        lost=st.sampled_from([0.0, 0.2, 0.6]),
        late_s=st.sampled_from([0.0, 0.1, 2.0]),
        deaths_per_s=st.sampled_from([0.0, 0.1, 0.4]),
        slow=st.sampled_from([0.0, 0.3]),
    ),
    st.integers(0, 1 << 32),
)
def test_never_more_than_the_rate_in_any_window(rate: float, senders: int, chaos: Chaos, seed: int) -> None:
    """Every sender wants all of it, or nothing, by turns; single senders lease from themselves here."""
    rng = Random(seed)
    pool = Pool(rate, senders, rng, chaos)
    idle = {number: rng.random() < 0.3 for number in range(senders)}

    def wanted(number: int) -> int:
        if rng.random() < STEP_S / 2:
            idle[number] = rng.random() < 0.3
        return 0 if idle[number] else 1000

    pool.run(15.0, wanted)
    pool.check()


@pytest.mark.parametrize("rate", [0.2, 1.0, 3.0, 50.0, 500.0])
def test_the_pool_uses_the_whole_quota(rate: float) -> None:
    pool = Pool(rate, 5, Random(4), Chaos(late_s=0.04))
    pool.run(5 + 10 * pool_period(rate))
    pool.check()
    since_s = 5 + pool_period(rate)
    used = pool.wrote(since_s) / (rate * (pool.now_s - since_s))
    print(f"rate {rate}: {used:.3f} of the quota, in steps of {STEP_S} s")
    assert used >= 0.7, "a step and the slack at the write, of each second, are lost here"


def pool_period(rate: float) -> float:
    return whole(rate)[1]


def test_a_busy_sender_gets_what_the_others_leave() -> None:
    pool = Pool(90.0, 3, Random(5), Chaos())
    pool.run(6.0, lambda number: 0)
    assert sum(pool.shares()) == 90, "what nobody wants is spread"
    pool.run(6.0, lambda number: 1000 if number == 1 else 0)
    assert pool.shares() == [0, 90, 0]
    pool.run(6.0)
    assert pool.shares() == [30, 30, 30]
    pool.check()


@pytest.mark.parametrize("victim", [0, 1], ids=["lender", "borrower"])
def test_shares_come_back_after_a_death(victim: int) -> None:
    pool = Pool(90.0, 3, Random(6), Chaos())
    pool.run(5.0)
    assert pool.shares() == [30, 30, 30]
    pool.kill(victim, 1e6 if victim else 2.0)
    died_s = pool.now_s
    pool.run(TTL_S - RENEW_S)
    assert pool.shares()[2] == 30, "nobody loses what it holds"
    pool.run(outlived_s(1.0) + 3.0)
    assert pool.shares() == ([30, 30, 30] if victim == 0 else [45, 0, 45])
    assert pool.wrote(died_s, died_s + 2.0) > 0, "and goes on all the while"
    pool.check()


def test_without_a_lender_a_share_runs_out_and_stays_out() -> None:
    pool = Pool(90.0, 3, Random(7), Chaos())
    pool.run(5.0)
    pool.kill(0, 1e6)
    pool.run(TTL_S + 0.1)
    assert pool.shares() == [0, 0, 0]
    wrote = pool.wrote(0.0)
    pool.run(2.0)
    assert pool.wrote(0.0) == wrote


def test_a_new_lender_renews_and_lends_nothing_new_until_it_knows() -> None:
    lender = Lender(100, 1.0, settled_s=10.0)
    assert lender.lend(Claim(1, 1, 100, 40, 40), 6.0).share == 40
    assert lender.lend(Claim(2, 1, 100, 0, 0), 6.0).share == 0
    assert lender.lend(Claim(1, 2, 0, 40, 40), 9.9).share == 40
    assert lender.lend(Claim(2, 2, 100, 0, 0), 10.0).share == 60
    assert not lender.alone(2, 10.0)


def test_claims_that_were_overtaken_change_nothing() -> None:
    lender = Lender(100, 1.0, -inf)
    assert lender.lend(Claim(1, 2, 100, 0, 0), 0.0).share == 100
    assert lender.lend(Claim(1, 1, 0, 0, 0), 0.1) == Lease(1, 0)
    assert lender.lend(Claim(2, 1, 100, 0, 0), 0.2).share == 0
    quota, borrower = Quota(100, -10.0), Borrower(1)
    old, new = borrower.claim(quota, 0.0), borrower.claim(quota, 0.5)
    assert not borrower.take(Lease(old.turn, 70), quota, 0.6)
    assert quota.share == 0
    assert borrower.take(Lease(new.turn, 60), quota, 0.6)
    assert (quota.share, quota.until_s) == (60, 0.5 + TTL_S)


def test_a_share_that_went_down_is_free_once_its_window_is_over() -> None:
    lender = Lender(100, 1.0, -inf)
    assert lender.lend(Claim(1, 1, 100, 0, 0), 0.0).share == 100
    assert lender.lend(Claim(2, 1, 100, 0, 0), 0.1).share == 0
    assert lender.lend(Claim(1, 2, 100, 100, 100), 0.2).share == 50
    assert lender.lend(Claim(2, 2, 100, 0, 0), 0.3).share == 0, "nobody knows whether it heard"
    assert lender.lend(Claim(1, 3, 100, 50, 80), 0.4).share == 50
    assert lender.lend(Claim(2, 3, 100, 0, 0), 0.5).share == 20, "eighty still count"
    assert lender.lend(Claim(1, 4, 100, 50, 50), 1.2).share == 50
    assert lender.lend(Claim(2, 4, 100, 20, 20), 1.3).share == 50


def test_the_first_to_ask_leaves_the_others_their_part() -> None:
    lender = Lender(100, 1.0, -inf, members=3)
    assert [lender.lend(Claim(life, 1, 0, 0, 0), 0.0).share for life in (1, 2, 3)] == [33, 33, 33]
    lender.configure(90, 1.0, 3)
    assert [lender.lend(Claim(life, 2, 0, 30, 30), 0.5).share for life in (1, 2, 3)] == [24, 27, 30]


@given(
    st.dictionaries(st.integers(0, 99), st.tuples(st.integers(0, 60), st.integers(0, 9)), min_size=1),
    st.integers(0, 200),
)
def test_shares_are_max_min_fair(wants: dict[int, tuple[int, int]], total: int) -> None:
    shares = fair(wants, total)
    assert sum(shares.values()) == total
    if sum(want for want, _ in wants.values()) >= total:
        worst = min((shares[life] for life in wants if shares[life] < wants[life][0]), default=total)
        assert all(shares[life] <= wants[life][0] for life in wants)
        assert all(share <= worst + 1 for share in shares.values())
    else:
        assert all(shares[life] >= wants[life][0] for life in wants)
