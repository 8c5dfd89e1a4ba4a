"""The crash matrix: SIGKILL of every part, under the load of a live stream, and what must hold afterwards."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from dispatcher.client import Client
from tests.auditor import Ledger, accepted_times, highest, settled
from tests.faults.conftest import PARTITIONS, Pair
from tests.live import Live, until
from tests.support import run

RATE = 1_500
SECONDS = 4.0
KILL_AT_S = 1.5
PEOPLE = 1_000  # each is asked for six notices of one line, and may get five
MAX_BATCH = 20
CONCURRENCY = 8
#: Messages that one sender can have in requests in the air. Only of those may nobody know what became of them.
AIR = MAX_BATCH * CONCURRENCY
SENDERS = 2


@pytest.fixture(scope="module", autouse=True)
def _providers(started: Pair) -> None:
    """Slow enough for messages to be in the air at any moment, but for no more than can be counted."""
    for name in ("sms-a", "sms-b"):
        started[0].change_provider(name, max_batch=MAX_BATCH, concurrency=CONCURRENCY)
        started[1].patch(name, latency={"kind": "uniform", "low_ms": 5, "high_ms": 60})


def phone(family: int, number: int) -> str:
    return f"+861{30 + family}{number:08d}"


async def paced(family: int, name: str) -> AsyncIterator[dict[str, Any]]:
    """A steady stream of different notices to many people."""
    start = time.monotonic()
    for n in range(int(RATE * SECONDS)):
        if not n % 50:
            await asyncio.sleep(max(0.0, start + n / RATE - time.monotonic()))
        to = {"sms": phone(family, n % PEOPLE)}
        yield {"id": f"{name}-{n}", "to": to, "template": "notice", "line": "wallet", "params": {"n": f"{name} {n}"}}


async def stream_while(url: str, family: int, name: str, breaking: Callable[[], None]) -> list[Any]:
    """Stream, break something on the way; the results."""

    async def strike() -> None:
        await asyncio.sleep(KILL_AT_S)
        await asyncio.to_thread(breaking)

    async with Client(url, patience_s=90.0) as client:
        striking = asyncio.create_task(strike())
        results = [result async for result in client.stream(paced(family, name))]
        await striking
    return results


def check(name: str, results: list[Any], ledger: Ledger, journal: list[dict[str, Any]], died: int) -> None:
    """What must hold after any crash. `died`: how many senders were killed."""
    accepted = {m.message for r in results if r.status == "accepted" for m in r.messages if m.status == "accepted"}
    assert len(results) == int(RATE * SECONDS)
    assert {r.status for r in results} <= {"accepted", "intercepted"}
    assert len(accepted) == PEOPLE * 5, "exactly the cap is accepted, whatever died"
    assert ledger.ended_twice() == []
    times = accepted_times(journal)
    outcomes = {id_: ledger.ends[id_][0][1] for id_ in accepted}
    counts = {outcome: sum(o == outcome for o in outcomes.values()) for outcome in set(outcomes.values())}
    unknown = {id_ for id_, outcome in outcomes.items() if outcome == "unknown"}
    nowhere = {id_ for id_ in unknown if not times[id_]}
    twice = {id_ for id_, n in times.items() if n > 1}
    print(
        f"{name}: {len(accepted)} accepted, outcomes {counts}, {len(nowhere)} unknown at no provider, "
        f"{len(twice)} sent twice"
    )
    lost = [id_ for id_, outcome in outcomes.items() if outcome == "sent" and not times[id_]]
    assert lost == [], "settled as sent, and no provider has it"
    assert counts.keys() <= {"sent", "unknown"}, "providers were well"
    assert len(unknown) <= AIR * died, "more are unknown than can have been in the air"
    assert twice == set(), "a message that may have been written is not sent again, and any other was not sent"
    assert highest(journal, "sms", by_line=True) <= 5
    assert highest(journal, "sms") <= 30


@pytest.mark.parametrize(("family", "role"), list(enumerate(["shard", "router", "sender", "gateway", "valkey"])))
def test_one_part_is_killed_under_load(pair: Pair, family: int, role: str) -> None:
    dispatcher, simulated = pair
    killed: list[int] = []

    def strike() -> None:
        killed.append(dispatcher.kill_sender("sms-a") if role == "sender" else dispatcher.kill(role))

    results = run(stream_while(dispatcher.url, family, role, strike), timeout_s=180)
    ids = {m.message for r in results if r.status == "accepted" for m in r.messages if m.message}
    ledger = run(settled(dispatcher.store_url, PARTITIONS, ids), timeout_s=90)
    check(role, results, ledger, simulated.journal(), died=1 if role == "sender" else 0)
    until(lambda: dispatcher.call("GET", "/readyz")[0] == 200, "readyz to be 200 again")
    if role != "valkey":
        until(lambda: killed[0] not in pids(dispatcher, role), f"a new {role}")
        assert any(actor["restarts"] >= 1 for actor in dispatcher.actors(role))


def pids(dispatcher: Live, role: str) -> list[int]:
    return [actor["pid"] for actor in dispatcher.actors(role)]


def test_a_replay_decides_nothing_again(pair: Pair) -> None:
    """What was decided by the rules of then stays, whatever rules there are when the log is read again; and the next
    decisions count what was sent before both."""
    dispatcher, _ = pair
    _, before = dispatcher.call("GET", "/v1/rules")

    def rules(limit: int) -> None:
        cap = {"name": "cap", "kind": "line_cap", "limit": limit, "window_s": 3_600}
        assert dispatcher.call("PUT", "/v1/rules", [cap])[0] == 200

    def sent(n: int, query: str = "") -> dict[str, Any]:
        trigger = {"id": f"again-{n}", "to": {"sms": phone(8, 1)}, "template": "notice", "line": "wallet"}
        status, answer = dispatcher.call("POST", f"/v1/triggers{query}", {**trigger, "params": {"n": n}})
        assert status == 200, answer
        found: dict[str, Any] = answer
        return found

    try:
        rules(3)
        first = [sent(n) for n in range(5)]
        assert [answer["status"] for answer in first] == ["accepted"] * 3 + ["intercepted"] * 2
        rules(4)
        shard = dispatcher.kill("shard")
        until(lambda: shard not in pids(dispatcher, "shard"), "a new shard")
        # A call that was on its way when it died is repeated, and then answered as the first time: not this test's.
        until(lambda: sent(0)["status"] == "duplicate", "the new shard to answer")
        again = [sent(n) for n in range(5)]
        assert [answer["status"] for answer in again] == ["duplicate"] * 5
        assert [answer["first"] for answer in again] == [
            {"status": answer["status"], "reason": answer["reason"]} for answer in first
        ]
        assert [answer["messages"] for answer in again[:3]] == [answer["messages"] for answer in first[:3]]
        assert [sent(n)["status"] for n in (5, 6)] == ["accepted", "intercepted"]
        [cap] = sent(7, "?dry_run=true")["explain"][0]["rules"]
        assert (cap["passed"], cap["count"], cap["limit"]) == (False, 4, 4)
    finally:
        assert dispatcher.call("PUT", "/v1/rules", before)[0] == 200


def test_what_is_for_later_outlives_its_shard(pair: Pair) -> None:
    """Parked in the log: decided once, when due, by whoever owns the partition then."""
    dispatcher, simulated = pair
    due_s = time.time() + 6.0
    triggers = [
        {
            "id": f"later-{n}", "to": {"sms": phone(9, n)}, "template": "notice", "line": "wallet", "params": {"n": n},
            "send_at": datetime.fromtimestamp(due_s, UTC).isoformat(),
        }
        for n in range(40)
    ]  # fmt: skip
    status, answers = dispatcher.call("POST", "/v1/triggers", triggers)
    assert status == 200
    assert {answer["status"] for answer in answers} == {"accepted"}
    assert all(answer["messages"][0]["due"] for answer in answers)
    shard = dispatcher.kill("shard")
    until(lambda: shard not in pids(dispatcher, "shard"), "a new shard")
    ids = {answer["messages"][0]["message"] for answer in answers}
    ledger = run(settled(dispatcher.store_url, PARTITIONS, ids), timeout_s=90)
    times = accepted_times(simulated.journal())
    assert {times[id_] for id_ in ids} == {1}
    assert {ledger.ends[id_][0][1] for id_ in ids} == {"sent"}
    assert min(ledger.admitted[id_] for id_ in ids) >= due_s * 1000 - 1, "none was decided before it was due"


def test_everything_is_killed_and_started_again(pair: Pair) -> None:
    dispatcher, simulated = pair
    dispatcher.settings["http"] = {"port": int(dispatcher.url.rsplit(":", 1)[1])}

    def break_all() -> None:
        dispatcher.kill_tree()
        dispatcher.up()

    results = run(stream_while(dispatcher.url, 6, "tree", break_all), timeout_s=180)
    ids = {m.message for r in results if r.status == "accepted" for m in r.messages if m.message}
    ledger = run(settled(dispatcher.store_url, PARTITIONS, ids), timeout_s=90)
    check("tree", results, ledger, simulated.journal(), died=SENDERS)


def test_it_drains(pair: Pair) -> None:
    """SIGTERM under load: exit code 0, nothing in hand is cut off, and every accepted message ends."""
    dispatcher, simulated = pair
    for name in ("sms-a", "sms-b"):
        simulated.patch(name, latency={"kind": "constant", "ms": 300})
    messages = [
        {"id": f"drain-{n}", "to": {"sms": phone(7, n)}, "template": "notice", "line": "loan", "params": {"n": n}}
        for n in range(500)
    ]
    status, answers = dispatcher.call("POST", "/v1/triggers", messages)
    assert status == 200
    assert {answer["status"] for answer in answers} == {"accepted"}
    assert dispatcher.down() == 0
    dispatcher.up()
    ids = {answer["messages"][0]["message"] for answer in answers}
    ledger = run(settled(dispatcher.store_url, PARTITIONS, ids), timeout_s=90)
    times = accepted_times(simulated.journal())
    assert ledger.ended_twice() == []
    assert {times[id_] for id_ in ids} == {1}
