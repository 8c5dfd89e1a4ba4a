"""What a load run sends and when: pure, so that two processes with equal plans agree on both."""

import math
import random
from typing import Any, Final

from msgspec import Struct

BURST: Final = 512  # triggers a write at most
RING: Final = 1 << 20  # users of one run at most
TEMPLATES: dict[str, dict[str, Any]] = {
    f"load_{type_}": {
        "type": type_,
        "level": level,
        "mode": "first",
        "channels": [{"channel": "sms", "text": text, "signature": "示例"}],
    }
    for type_, level, text in (
        ("verification", 1, "验证码{order},5分钟内有效。"),
        ("notice", 2, "尊敬的客户,订单{order}已支付{amount}元。"),
        ("repayment", 2, "您的账单{order}本期应还{amount}元。"),
        ("marketing", 5, "专享券{order},满{amount}元可用。"),
    )
}
TEMPLATES |= {
    f"push_{name}": TEMPLATES[f"load_{name}"] | {"channels": [{"channel": "push", "title": "示例", "body": "{order}"}]}
    for name in ("verification", "notice", "marketing")
}
#: Shares of the templates above. They must be in the catalog (PUT /v1/templates/{id}).
MIXES: Final[dict[str, dict[str, int]]] = {
    "code": {"load_verification": 1},
    "notice": {"load_notice": 1},
    "sale": {"load_marketing": 1},
    "push_code": {"push_verification": 1},
    "push_notice": {"push_notice": 1},
    "push_sale": {"push_marketing": 1},
    "demo": {"load_verification": 20, "load_notice": 50, "load_repayment": 20, "load_marketing": 10},
}


class Plan(Struct, frozen=True):
    """What is sent; two equal plans send the same. Users take turns in an order that the seed shuffles.

    What falls due within `tick_s` shares a write, which adds half of it to a latency on average: smaller is more exact
    and costs more.
    """

    rate: float = 30_000.0
    seconds: float = 10.0
    users: int = 100_000
    mix: str = "notice"
    seed: int = 7
    tick_s: float = 0.002
    line: str = "default"

    @property
    def total(self) -> int | None:
        """How many triggers; None at rate 0."""
        return int(self.rate * self.seconds) if self.rate else None

    def intended_s(self, n: int) -> float:
        """When trigger `n` should be sent, in seconds from the start."""
        return n / self.rate

    def people(self) -> list[int]:
        """Trigger `n` is for user `u<people[n % len(people)]>`."""
        return random.Random(self.seed).sample(range(self.users), min(self.users, RING))


class Pace(Struct, frozen=True):
    """What the loop should do: send `due` triggers, or wait `wait_s`, or stop."""

    due: int
    wait_s: float
    over: bool = False


def pace(plan: Plan, elapsed_s: float, sent: int) -> Pace:
    """The pacer: pure, trigger `n` is due at `n / rate`."""
    if plan.total is None:
        return Pace(BURST, 0.0, over=elapsed_s >= plan.seconds)
    if sent >= plan.total:
        return Pace(0, 0.0, over=True)
    reached = min(plan.total, math.floor(elapsed_s * plan.rate) + 1) if elapsed_s >= 0 else 0
    return Pace(max(0, reached - sent), max(0.0, plan.intended_s(sent) - elapsed_s))


class Lines:
    """The triggers of a plan as HTTP chunks of NDJSON; all but the number is encoded beforehand."""

    def __init__(self, plan: Plan) -> None:
        rng = random.Random(plan.seed)
        shares = MIXES[plan.mix]
        people = plan.people()
        templates = rng.choices(list(shares), list(shares.values()), k=len(people))
        self._head = f'{{"id":"b-{plan.seed}-'.encode()
        more = "" if plan.line == "default" else f'"line":"{plan.line}",'
        self._middles = [
            f'","user":"u{user}","template":"{template}",{more}"params":{{'
            f'"amount":"{rng.randrange(1, 99999) / 100:.2f}","order":"'.encode()
            for user, template in zip(people, templates, strict=True)
        ]
        self._size = len(people)

    def chunk(self, start: int, stop: int) -> bytes:
        """Triggers `start` to `stop` as one HTTP chunk."""
        head, middles, size = self._head, self._middles, self._size
        data = b"".join([b'%b%d%b%d"}}\n' % (head, n, middles[n % size], n) for n in range(start, stop)])
        return b"%x\r\n%b\r\n" % (len(data), data)
