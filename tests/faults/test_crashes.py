"""The crash matrix: SIGKILL of every part, under the load of a live stream, and what must hold afterwards."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from dispatcher.client import Client
from tests.auditor import Ledger, accepted_times, highest, settled, watch
from tests.live import Live, live, until
from tests.peer import Simulator
from tests.support import run

PARTITIONS = 8
RATE = 1_500
SECONDS = 6.0
KILL_AT_S = 2.0
PEOPLE = 1_500  # each is asked for six notices of one line, and may get five
SLACK_MS = 2_000  # a message counts as in flight at the kill when it was admitted and not settled around that time

Pair = tuple[Live, Simulator]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """One dispatcher for the whole matrix: it has to stand all of it."""
    with live(tmp_path_factory.mktemp("crash"), partitions=PARTITIONS, snapshot={"every_s": 2.0}) as started:
        run(watch(started[0].store_url, PARTITIONS))
        for name in ("sms-a", "sms-b"):
            started[1].patch(name, latency={"kind": "uniform", "low_ms": 5, "high_ms": 60})
        yield started


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


async def stream_while(url: str, family: int, name: str, breaking: Callable[[], None]) -> tuple[list[Any], int]:
    """Stream, break something on the way; the results and the moment of the breaking (epoch ms)."""
    broken_ms = 0

    async def strike() -> None:
        nonlocal broken_ms
        await asyncio.sleep(KILL_AT_S)
        broken_ms = time.time_ns() // 1_000_000
        await asyncio.to_thread(breaking)

    async with Client(url, patience_s=90.0) as client:
        striking = asyncio.create_task(strike())
        results = [result async for result in client.stream(paced(family, name))]
        await striking
    return results, broken_ms


def check(name: str, results: list[Any], ledger: Ledger, journal: list[dict[str, Any]], broken_ms: int) -> None:
    """What must hold after any crash."""
    accepted = {m.message for r in results if r.status == "accepted" for m in r.messages if m.status == "accepted"}
    assert len(results) == int(RATE * SECONDS)
    assert {r.status for r in results} <= {"accepted", "intercepted"}
    assert len(accepted) == PEOPLE * 5, "exactly the cap is accepted, whatever died"
    assert ledger.ended_twice() == []
    times = accepted_times(journal)
    outcomes = {id_: ledger.ends[id_][0][1] for id_ in accepted}
    lost = [id_ for id_, outcome in outcomes.items() if outcome == "sent" and not times[id_]]
    assert lost == [], "settled as sent, and no provider has it"
    assert highest(journal, "sms", by_line=True) <= 5
    assert highest(journal, "sms") <= 30
    twice = {id_ for id_, n in times.items() if n > 1}
    in_flight = {
        id_
        for id_ in ledger.admitted
        if ledger.admitted[id_] <= broken_ms + SLACK_MS and ledger.ends[id_][0][0] >= broken_ms - SLACK_MS
    }
    counts = {outcome: sum(o == outcome for o in outcomes.values()) for outcome in set(outcomes.values())}
    print(f"{name}: {len(accepted)} accepted, outcomes {counts}, {len(twice & accepted)} sent twice")
    assert twice <= in_flight, "only what was in flight at the kill may be sent twice"


@pytest.mark.parametrize(("family", "role"), list(enumerate(["shard", "router", "sender", "gateway", "valkey"])))
def test_one_part_is_killed_under_load(pair: Pair, family: int, role: str) -> None:
    dispatcher, simulated = pair
    simulated.reset()
    killed: list[int] = []
    results, broken_ms = run(
        stream_while(dispatcher.url, family, role, lambda: killed.append(dispatcher.kill(role))), timeout_s=180
    )
    ids = {m.message for r in results if r.status == "accepted" for m in r.messages if m.message}
    ledger = run(settled(dispatcher.store_url, PARTITIONS, ids), timeout_s=90)
    check(role, results, ledger, simulated.journal(), broken_ms)
    until(lambda: dispatcher.call("GET", "/readyz")[0] == 200, "readyz to be 200 again")
    if role != "valkey":
        until(lambda: killed[0] not in pids(dispatcher, role), f"a new {role}")
        assert any(actor["restarts"] >= 1 for actor in dispatcher.actors(role))


def pids(dispatcher: Live, role: str) -> list[int]:
    return [actor["pid"] for actor in dispatcher.actors(role)]


def test_everything_is_killed_and_started_again(pair: Pair) -> None:
    dispatcher, simulated = pair
    simulated.reset()
    dispatcher.settings["http"] = {"port": int(dispatcher.url.rsplit(":", 1)[1])}

    def break_all() -> None:
        dispatcher.kill_tree()
        dispatcher.up()

    results, broken_ms = run(stream_while(dispatcher.url, 6, "tree", break_all), timeout_s=180)
    ids = {m.message for r in results if r.status == "accepted" for m in r.messages if m.message}
    ledger = run(settled(dispatcher.store_url, PARTITIONS, ids), timeout_s=90)
    check("tree", results, ledger, simulated.journal(), broken_ms)


def test_it_drains(pair: Pair) -> None:
    """SIGTERM under load: exit code 0, nothing in hand is cut off, and every accepted message ends."""
    dispatcher, simulated = pair
    simulated.reset()
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
