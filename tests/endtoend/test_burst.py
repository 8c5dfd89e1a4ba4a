"""Everything at once for one user: the caps hold over all gateways, whatever form it comes in."""

import asyncio
import random
from collections import Counter
from typing import Any, Final

import pytest

from tests.auditor import settled
from tests.endtoend.conftest import Pair
from tests.endtoend.talk import (
    PARTITIONS,
    accepted_in,
    connections,
    held_by,
    lines_of,
    notice,
    phone,
    spread,
    stream,
)
from tests.support import run

BURST: Final = 1_000
CAP: Final = 5  # shipped: line_cap of sms a day
CONNECTIONS: Final = 32
SPELLINGS: Final = (
    "{n}",
    "+86{n}",
    "0086{n}",
    "86{n}",
    "+86 {n3} {n7} {n11}",
    "+86-{n3}-{n7}-{n11}",
    "{n3} {n7} {n11}",
)


async def burst(pair: Pair, triggers: list[Any], form: str) -> list[dict[str, Any]]:
    """All triggers at once over connections to both gateways."""
    async with connections(pair[0].url, CONNECTIONS) as sessions:
        held = await asyncio.to_thread(held_by, pair[0])
        assert len(held) == 2
        assert min(held.values()) > 0, f"a gateway has none of the {CONNECTIONS} connections: {held}"
        if form == "single":
            return await spread(sessions, triggers)
        parts = [triggers[k::CONNECTIONS] for k in range(CONNECTIONS)]
        answered = await asyncio.gather(
            *(stream(session, lines_of(part)) for session, part in zip(sessions, parts, strict=True))
        )
        return [result for results, _ in answered for result in results]


def check(pair: Pair, results: list[dict[str, Any]], to: str) -> None:
    """Exactly the cap, in the answers, in the log and at the provider."""
    statuses = Counter((result["status"], result["reason"]) for result in results)
    assert statuses == {("accepted", None): CAP, ("intercepted", "line_cap"): BURST - CAP}
    accepted = accepted_in(results)
    assert len(accepted) == CAP
    run(settled(pair[0].store_url, PARTITIONS, accepted))
    rows = [row for row in pair[1].journal() if row["to"] == to]
    assert {row["id"] for row in rows} == accepted
    assert [row["times"] for row in rows] == [1] * CAP


@pytest.mark.parametrize("form", ["single", "stream"])
def test_a_user_gets_exactly_the_cap(pair: Pair, form: str, mark: str, area: int) -> None:
    to = phone(area, 1)
    user = f"u-{mark}-{form}"
    assert pair[0].call("PUT", f"/v1/users/{user}", {"addresses": {"sms": [to]}})[0] == 200
    triggers = [
        {"id": f"{mark}-{n}", "user": user, "template": "notice", "line": "wallet", "params": {"n": n}}
        for n in range(BURST)
    ]
    check(pair, run(burst(pair, triggers, form)), to)


def test_an_address_is_one_user_however_it_is_spelled(pair: Pair, mark: str, area: int, rng: random.Random) -> None:
    to = phone(area, 2)
    n = to[3:]
    digits = {"n": n, "n3": n[:3], "n7": n[3:7], "n11": n[7:]}
    spelled = [SPELLINGS[k % len(SPELLINGS)].format(**digits) for k in range(BURST)]
    rng.shuffle(spelled)
    triggers = [notice(f"{mark}-{k}", spelling, k) for k, spelling in enumerate(spelled)]
    check(pair, run(burst(pair, triggers, "single")), to)


def test_another_line_has_slots_of_its_own_until_the_company_has_none(pair: Pair, mark: str, area: int) -> None:
    """Example 3 of the rules, at once: 5 a line, 30 in all."""
    to = phone(area, 3)
    for k in range(8):
        assert pair[0].call("PUT", f"/v1/lines/{mark}-{k}", {"name": f"line {k}"})[0] in (200, 201)
    triggers = [notice(f"{mark}-{n}", to, f"c{n}", line=f"{mark}-{n // 50}") for n in range(400)]

    async def go() -> list[dict[str, Any]]:
        async with connections(pair[0].url, 16) as sessions:
            return await spread(sessions, triggers)

    results = run(go())
    taken = [trigger for trigger, r in zip(triggers, results, strict=True) if r["status"] == "accepted"]
    by_line = Counter(trigger["line"] for trigger in taken)
    assert sum(by_line.values()) == 30
    assert max(by_line.values()) <= CAP
    assert {r["reason"] for r in results if r["status"] == "intercepted"} == {"line_cap", "company_cap"}
    run(settled(pair[0].store_url, PARTITIONS, accepted_in(results)))
    rows = [row for row in pair[1].journal() if row["to"] == to]
    assert len(rows) == sum(row["accepted"] for row in rows) == 30


def test_no_rule_lets_one_through_too_many(pair: Pair, mark: str, area: int, rng: random.Random) -> None:
    """Every shipped rule at once against one user, from all gateways: each holds, at the provider too."""
    dispatcher = pair[0]
    to = phone(area, 4)
    kinds: dict[str, Any] = {
        "sale": {"type": "marketing"},
        "tip": {"type": "notice", "level": 4},
        "news": {"type": "notice_marketing"},
        "paid": {"type": "notice"},
        "code": {"type": "verification"},
    }
    for name, kind in kinds.items():
        text = {"channel": "sms", "text": f"{name} {{n}}"}
        assert dispatcher.call("PUT", f"/v1/templates/{name}-{mark}", {**kind, "channels": [text]})[0] == 201
    assert dispatcher.call("PUT", "/v1/keywords/default", {"words": [f"lottery{mark}"]})[0] == 200
    for k in range(10):
        assert dispatcher.call("PUT", f"/v1/lines/{mark}-{k}", {"name": f"line {k}"})[0] == 201
    triggers = []
    for n in range(BURST):
        name = rng.choice(list(kinds))
        what = f"l.o.t.t.e.r.y {mark}" if n % 10 == 0 else f"{rng.randrange(60)}"  # many alike
        task = f"campaign-{n % 3}" if name in ("sale", "news") else None
        more = {"template": f"{name}-{mark}", "line": f"{mark}-{n % 10}", "params": {"n": what}}
        triggers.append({"id": f"{mark}-{n}", "to": {"sms": to}, **more})
        if task is not None:
            triggers[-1]["task"] = task
    try:
        results = sorted(run(burst(pair, triggers, "single")), key=lambda result: int(result["id"].rsplit("-")[-1]))
    finally:
        assert dispatcher.call("PUT", "/v1/keywords/default", {"words": []})[0] == 200
    taken = [trigger for trigger, result in zip(triggers, results, strict=True) if result["status"] == "accepted"]
    names = Counter(trigger["template"].partition("-")[0] for trigger in taken)
    assert not any("l.o.t" in trigger["params"]["n"] for trigger in taken)
    assert names["sale"] + names["news"] == 1  # frequency: one in 7 days, so each task once at most, too
    assert names["tip"] + names["news"] <= 3  # level_cap
    assert max(Counter(trigger["line"] for trigger in taken).values()) <= CAP
    assert len(taken) == 30  # company_cap, and there was more than enough to fill it
    assert max(Counter((t["template"], t["params"]["n"]) for t in taken).values()) == 1  # repeat
    reasons = {result["reason"] for result in results} - {None}
    assert reasons >= {"keyword", "frequency", "level_cap", "company_cap"}
    run(settled(dispatcher.store_url, PARTITIONS, accepted_in(results)))
    rows = [row for row in pair[1].journal() if row["to"] == to]
    assert {row["id"] for row in rows} == accepted_in(results)
    assert [row["times"] for row in rows] == [1] * 30
