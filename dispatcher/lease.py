"""How the senders of a pool share its rate quota: one lends integer shares of it, the others hold them for a while.

In no window does the pool write more than the quota allows, because at every moment the charges of all holders add up
to no more than that. A holder's charge bounds what it may write in any window that ends from now on: the largest of
what it last said that it holds or has used, and of what it was lent since. So a share that went down is charged as it
was until its holder says that what it wrote under it has left the window; only then another's goes up. A holder that is
silent is charged until its lease has surely run out and its last window is over.

Only durations travel, so the clocks of two senders need not agree, only run equally fast. A lease runs from when it was
asked for, by the holder's clock. Gray and Cheriton, "Leases: An Efficient Fault-Tolerant Mechanism for Distributed File
Cache Consistency" (1989), is where that comes from, and that a lender which was replaced waits for as long as its
predecessor's leases can last. Holders keep theirs meanwhile.

Shares are max-min fair (Bertsekas and Gallager, "Data Networks", section 6.5.2): nobody gets more than it wants while
another gets less than it wants and less than that. What nobody wants is spread evenly.
"""

from collections.abc import Mapping
from math import inf
from typing import Final

from msgspec import Struct

from dispatcher.quota import Quota

#: Of a lease; outlasts the restart of the lender, so that holders go on meanwhile.
TTL_S: Final = 5.0
RENEW_S: Final = 0.25
#: From the last look at a lease to the last byte of a request: a turn of the loop.
SLACK_S: Final = 0.25


class Claim(Struct, array_like=True, gc=False):
    """What a sender asks. `life`: it and none of its successors; `turn`: counts its claims.

    `using`: the most it can have written in any window that ends from now on, while it is lent no more than `held`.
    """

    life: int
    turn: int
    want: int
    held: int
    using: int


class Lease(Struct, array_like=True, gc=False):
    """The share a sender may use for `ttl_s` from when it asked."""

    turn: int
    share: int
    ttl_s: float = TTL_S


class _Holder(Struct, gc=False):
    turn: int
    want: int
    charge: int
    heard_s: float


def outlived_s(period_s: float) -> float:
    """How long after a lease was asked for it surely counts in no window."""
    return TTL_S + period_s + SLACK_S


def fair(wants: Mapping[int, tuple[int, int]], total: int, members: int = 0) -> dict[int, int]:
    """Max-min fair shares of (want, charge) by life, then what is left, evenly, with a part for each of the pool's
    `members` that is not among them. Odd units stay where they are."""
    shares: dict[int, int] = {}
    left = total
    order = sorted(wants, key=lambda life: (*wants[life], life))
    for place, life in enumerate(order):
        shares[life] = min(wants[life][0], left // (len(order) - place))
        left -= shares[life]
    for place, life in enumerate(order):
        spare = left // (max(members, len(order)) - place)
        shares[life] += spare
        left -= spare
    return shares


class Lender:
    """Lends `total` messages in any `period_s`. Until `settled_s` it only renews: what a predecessor lent still counts
    and not everybody may have said so yet."""

    def __init__(self, total: int, period_s: float, settled_s: float, members: int = 0) -> None:
        self.total = total
        self.period_s = period_s
        self.members = members
        self._settled_s = settled_s
        self._holders: dict[int, _Holder] = {}

    def configure(self, total: int, period_s: float, members: int) -> None:
        """Another quota; who holds too much of it now is lent less from its next claim on."""
        self.total = total
        self.period_s = period_s
        self.members = members

    def lend(self, claim: Claim, now_s: float) -> Lease:
        """Answer a claim. One that was overtaken by a later one of the same sender changes nothing."""
        self._forget(now_s)
        holder = self._holders.get(claim.life)
        if holder is not None and claim.turn <= holder.turn:
            return Lease(claim.turn, 0)
        holder = self._holders[claim.life] = _Holder(claim.turn, claim.want, max(claim.using, claim.held), now_s)
        share = min(self._target(claim, now_s), self.total - self._charged_to_others(claim.life))
        share = max(share, 0)
        holder.charge = max(holder.charge, share)
        return Lease(claim.turn, share)

    def alone(self, life: int, now_s: float) -> bool:
        """Whether nobody else can have a share."""
        self._forget(now_s)
        return now_s >= self._settled_s and not self._charged_to_others(life)

    def _target(self, claim: Claim, now_s: float) -> int:
        if now_s < self._settled_s:
            return claim.held
        wants = {life: (holder.want, holder.charge) for life, holder in self._holders.items()}
        return fair(wants, self.total, self.members)[claim.life]

    def _charged_to_others(self, life: int) -> int:
        return sum(holder.charge for other, holder in self._holders.items() if other != life)

    def _forget(self, now_s: float) -> None:
        gone_s = now_s - outlived_s(self.period_s)
        for life in [life for life, holder in self._holders.items() if holder.heard_s <= gone_s]:
            del self._holders[life]


class Borrower:
    """One sender's side: what it claims, and what an answer does to its quota."""

    def __init__(self, life: int) -> None:
        self.life = life
        self._turn = 0
        self._asked_s = -inf
        self._want = 0
        self._short = False

    def ran_short(self, quota: Quota) -> bool:
        """A message was refused for want of quota. True: so it was not when it last asked, and it should ask now."""
        news = not self._short and self._want < quota.total
        self._short = True
        return news

    def claim(self, quota: Quota, now_s: float) -> Claim:
        """What to ask now. An answer to an earlier claim is worth nothing from here on."""
        used = quota.used(now_s)
        held = quota.share if quota.valid(now_s) else 0
        demand = quota.total if self._short else used + used // 4
        self._want = min(max(demand, self._want * 4 // 5), quota.total)  # so that shares do not flutter
        self._short = False
        self._turn += 1
        self._asked_s = now_s
        return Claim(self.life, self._turn, self._want, held, max(used, held))

    def take(self, lease: Lease, quota: Quota, now_s: float) -> bool:
        """Use what was lent. False: that was not the answer to the latest claim."""
        if lease.turn != self._turn:
            return False
        quota.lease(lease.share, self._asked_s + lease.ttl_s, now_s)
        return True
