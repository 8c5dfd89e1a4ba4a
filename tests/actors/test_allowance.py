"""The wiring of leases between senders: calls that are lost, a pool that grows and shrinks, permits."""

import asyncio
from collections.abc import Awaitable, Callable
from math import inf

import pytest

from actors.allowance import Allowance, Permit
from actors.ports import PeerGone
from channels.adapter import NotWritten
from dispatcher.lease import TTL_S, outlived_s
from dispatcher.quota import Quota
from tests.support import run, until


class Trio:
    """Three senders' allowances, whose calls go straight to the first's lender while the line is up."""

    def __init__(self) -> None:
        self.shift_s = 100.0
        self.up = True
        self.calls = 0
        self.parts = [Allowance(f"sender p:{n}", n, self.lend if n else None, self.now_s) for n in range(3)]

    def now_s(self) -> float:
        return asyncio.get_running_loop().time() + self.shift_s

    async def lend(self, claim: bytes) -> bytes:
        self.calls += 1
        if not self.up:
            raise PeerGone("scripted")
        return self.parts[0].lend(claim)

    def configure(self, rate_per_s: float | None, senders: int) -> None:
        for part in self.parts[:senders]:
            part.configure(rate_per_s, senders)

    @property
    def shares(self) -> list[int]:
        quotas = [part.quota for part in self.parts]
        return [quota.share if quota and quota.valid(self.now_s()) else 0 for quota in quotas]


def play(script: Callable[[Trio], Awaitable[None]]) -> None:
    async def scene() -> None:
        before = asyncio.all_tasks()
        trio = Trio()
        await script(trio)
        for part in trio.parts:
            await part.stop()
        assert asyncio.all_tasks() <= before

    run(scene())


def test_a_new_pool_shares_at_once_and_a_new_lender_waits() -> None:
    async def script(trio: Trio) -> None:
        trio.configure(90.0, 3)
        await until(lambda: trio.calls >= 2, "claims")
        assert trio.shares == [0, 0, 0], "a predecessor may have lent everything"
        trio.shift_s += outlived_s(1.0)
        await until(lambda: trio.shares == [30, 30, 30], "equal shares")

    async def first(trio: Trio) -> None:
        trio.parts[0].first = True
        trio.configure(90.0, 3)
        await until(lambda: trio.shares == [30, 30, 30], "equal shares at once", timeout_s=TTL_S)

    play(script)
    play(first)


def test_a_single_sender_has_it_all_and_asks_nobody() -> None:
    async def script(trio: Trio) -> None:
        trio.configure(90.0, 1)
        assert trio.shares == [90, 0, 0]
        assert trio.parts[0].quota is not None
        assert trio.parts[0].quota.until_s == inf
        assert trio.parts[0]._task is None

    play(script)


def test_a_pool_grows_and_shrinks_without_a_break() -> None:
    async def script(trio: Trio) -> None:
        trio.configure(90.0, 1)
        trio.parts[1].configure(90.0, 3)  # has heard of it first
        await until(lambda: trio.calls >= 1, "a claim")
        assert trio.shares == [90, 0, 0], "the first lends nothing while it takes itself for the only one"
        trio.configure(90.0, 3)
        assert sum(trio.shares) <= 90
        await until(lambda: trio.shares == [30, 30, 30], "equal shares")
        for part in trio.parts[1:]:
            await part.stop()
        trio.parts[0].configure(90.0, 1)
        assert trio.shares[0] == 30, "the others may still use theirs"
        trio.shift_s += outlived_s(1.0)
        await until(lambda: trio.shares == [90, 0, 0], "all of it again")
        await until(lambda: trio.parts[0]._task is None, "and nobody asks")

    play(script)


def test_shares_run_out_while_the_lender_cannot_be_reached() -> None:
    async def script(trio: Trio) -> None:
        trio.parts[0].first = True
        trio.configure(90.0, 3)
        await until(lambda: trio.shares == [30, 30, 30], "equal shares")
        trio.up = False
        calls = trio.calls
        await until(lambda: trio.calls >= calls + 4, "claims in vain")
        assert trio.shares == [30, 30, 30]
        trio.shift_s += TTL_S
        await until(lambda: trio.shares[1:] == [0, 0], "they ran out")
        trio.up = True
        await until(lambda: trio.shares == [30, 30, 30], "and are back")

    play(script)


def test_a_rate_that_goes_and_comes_begins_anew() -> None:
    async def script(trio: Trio) -> None:
        trio.configure(90.0, 1)
        old = trio.parts[0].quota
        trio.configure(None, 1)
        assert trio.parts[0].quota is None
        assert old is not None
        assert not old.valid(trio.now_s())
        trio.shift_s += 50.0
        trio.configure(90.0, 1)
        assert trio.parts[0].quota is not None
        assert trio.parts[0].quota.left(trio.now_s()) == 0, "what went out without a rate was not counted"

    play(script)


def test_a_permit_holds_for_its_lease_only() -> None:
    now = [10.0]
    quota = Quota(10.0, 0.0)
    quota.lease(10, 12.0, 10.0)
    assert quota.grant(9, 10.0) == 9
    stale, begun, unbegun = (Permit(quota, 3, lambda: now[0], "s") for _ in range(3))
    begun.begin()
    unbegun.close()
    unbegun.close()
    assert (quota.pending, quota.used(10.0)) == (6, 6)
    now[0] = 12.0
    with pytest.raises(NotWritten):
        stale.begin()
    quota.lease(10, 20.0, 12.5)
    now[0] = 13.0
    with pytest.raises(NotWritten):
        stale.begin()
    begun.close()
    assert (quota.pending, quota.used(13.0)) == (3, 6)
    stale.close()
    assert (quota.pending, quota.used(13.0), quota.used(14.01)) == (0, 3, 0)


def test_what_is_written_twice_counts_twice() -> None:
    quota = Quota(10.0, 0.0)
    quota.lease(10, 20.0, 10.0)
    assert quota.grant(4, 10.0) == 4
    permit = Permit(quota, 4, lambda: 10.0, "s")
    for used in (4, 8):
        permit.begin()
        permit.written()
        assert (quota.pending, quota.used(10.0)) == (0, used)
    with pytest.raises(NotWritten):
        permit.begin()
    permit.close()
    assert (quota.pending, quota.used(10.0)) == (0, 8)
