"""A sender is killed while its provider is well: only what was in the air at that moment may be unknown, and nothing is
sent twice. The provider's journal and the partition logs are the witnesses."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from itertools import count
from typing import Any, Final, NamedTuple

import pytest

from dispatcher.client import Client
from tests.auditor import Ledger, accepted_times, settled
from tests.faults.conftest import PARTITIONS, Pair
from tests.live import Live, until
from tests.peer import Simulator
from tests.support import run

RATE: Final = 4_000
SECONDS: Final = 4.0
KILL_AT_S: Final = 1.5
MAX_BATCH: Final = 20
CONCURRENCY: Final = 8
_trials: Final = count(100)


class Trial(NamedTuple):
    """SMS providers of a test's own, of which nothing is remembered; messages go to both. `a` will lose its sender."""

    dispatcher: Live
    simulated: Simulator
    a: str
    b: str
    prefix: str  # of ids and of phone numbers, three digits

    def notice(self, n: int) -> dict[str, Any]:
        to = {"sms": f"+86139{self.prefix}{n:05d}"}
        id_ = f"{self.prefix}-{n}"
        return {"id": id_, "to": to, "template": "notice", "line": "wallet", "params": {"n": str(n)}}

    def journal(self) -> list[dict[str, Any]]:
        return [row for row in self.simulated.journal() if row["provider"] in (self.a, self.b)]

    def put(self, path: str, document: Any) -> None:
        status, answer = self.dispatcher.call("PUT", path, document)
        assert status in (200, 201), answer

    def provide(self, name: str, **more: Any) -> None:
        options = {"url": self.simulated.at(name), "allow_private": True}
        self.put(f"/v1/providers/{name}", {"kind": "webhook", "channel": "sms", "options": options, **more})

    def route(self, *providers: str) -> None:
        self.put("/v1/routes", [{"match": {"channels": ["sms"]}, "providers": [{"id": id_} for id_ in providers]}])


@pytest.fixture
def trial(pair: Pair) -> Iterator[Trial]:
    prefix = str(next(_trials))
    found = Trial(*pair, f"a-{prefix}", f"b-{prefix}", prefix)
    yield found
    found.put("/v1/routes", [])
    for name in (found.a, found.b):
        found.dispatcher.call("DELETE", f"/v1/providers/{name}")


async def paced(trial: Trial, rate: int, seconds: float) -> AsyncIterator[dict[str, Any]]:
    """A steady stream to people who get one message each."""
    start = time.monotonic()
    for n in range(int(rate * seconds)):
        if not n % 50:
            await asyncio.sleep(max(0.0, start + n / rate - time.monotonic()))
        yield trial.notice(n)


async def stream_and_kill(trial: Trial, rate: int, seconds: float) -> list[Any]:
    """The results of a stream during which the SMS provider's sender was killed."""

    async def strike() -> None:
        await asyncio.sleep(KILL_AT_S)
        await asyncio.to_thread(trial.dispatcher.kill_sender, trial.a)

    async with Client(trial.dispatcher.url, patience_s=90.0) as client:
        striking = asyncio.create_task(strike())
        results = [result async for result in client.stream(paced(trial, rate, seconds))]
        await striking
    return results


def told(name: str, ids: set[str], ledger: Ledger, journal: list[dict[str, Any]]) -> tuple[Counter[str], set[str], int]:
    """Outcomes; unknown ones that no provider has; and how many were sent twice. All are printed."""
    outcomes = {id_: ledger.ends[id_][0][1] for id_ in ids}
    times = accepted_times(journal)
    assert ledger.ended_twice() == []
    assert [id_ for id_, outcome in outcomes.items() if outcome == "sent" and not times[id_]] == []
    counts = Counter(outcomes.values())
    nowhere = {id_ for id_, outcome in outcomes.items() if outcome == "unknown" and not times[id_]}
    twice = sum(n > 1 for n in times.values())
    print(f"{name}: {len(ids)} accepted, {dict(counts)}, {len(nowhere)} unknown at no provider, {twice} sent twice")
    return counts, nowhere, twice


def test_only_what_was_in_the_air_is_unknown(trial: Trial) -> None:
    dispatcher, simulated = trial.dispatcher, trial.simulated
    simulated.create(trial.a, latency={"kind": "lognormal", "p50_ms": 0.5, "p99_ms": 5})
    trial.provide(trial.a, timeout_s=2.0, max_batch=MAX_BATCH, concurrency=CONCURRENCY)
    trial.route(trial.a)
    results = run(stream_and_kill(trial, RATE, SECONDS), timeout_s=180)
    end = time.monotonic()
    ids = {m.message for r in results if r.status == "accepted" for m in r.messages if m.message}
    assert len(ids) == int(RATE * SECONDS)
    ledger = run(settled(dispatcher.store_url, PARTITIONS, ids), timeout_s=90)
    print(f"the last of them ended {time.monotonic() - end:.1f} s after the stream")
    counts, nowhere, twice = told("one sender", ids, ledger, trial.journal())
    assert set(counts) <= {"sent", "unknown"}
    assert counts["unknown"] <= MAX_BATCH * CONCURRENCY
    assert len(nowhere) <= MAX_BATCH * CONCURRENCY
    assert twice == 0


def test_a_thousand_requests_in_the_air_are_a_thousand_unknowns(trial: Trial) -> None:
    """And what waits behind them goes out once, when the sender is back."""
    dispatcher, simulated = trial.dispatcher, trial.simulated
    simulated.create(trial.a, latency={"kind": "constant", "ms": 40_000})
    trial.provide(trial.a, max_batch=1, concurrency=1_112, timeout_s=55.0)  # 90 % of it for this lane
    trial.route(trial.a)
    status, answers = dispatcher.call("POST", "/v1/triggers", [trial.notice(n) for n in range(1_000)])
    assert status == 200
    # A busy simulator makes some connect again, which takes its time.
    until(lambda: len(simulated.journal(trial.a)) == 1_000, "a thousand requests at the provider", timeout_s=39.0)
    status, more = dispatcher.call("POST", "/v1/triggers", [trial.notice(n) for n in range(1_000, 2_000)])
    assert status == 200
    killed = dispatcher.kill_sender(trial.a)
    simulated.create(trial.a)
    ids = {answer["messages"][0]["message"] for answer in (*answers, *more)}
    assert len(ids) == 2_000
    ledger = run(settled(dispatcher.store_url, PARTITIONS, ids), timeout_s=90)
    counts, nowhere, twice = told("1,000 in the air", ids, ledger, trial.journal())
    assert killed not in [actor["pid"] for actor in dispatcher.actors("sender")]
    assert counts == {"unknown": 1_000, "sent": 1_000}
    assert nowhere == set()
    assert twice == 0


def test_codes_do_not_wait_for_a_dead_sender_and_other_messages_flow(trial: Trial) -> None:
    dispatcher, simulated = trial.dispatcher, trial.simulated
    simulated.create(trial.a, latency={"kind": "constant", "ms": 30_000})
    simulated.create(trial.b)
    for name in (trial.a, trial.b):
        trial.provide(name, max_batch=1, concurrency=200, timeout_s=60.0)
    trial.route(trial.a, trial.b)
    codes = [
        {**trial.notice(n), "template": "code", "line": "loan", "params": {"code": str(n)}}
        for n in range(100)
    ]
    status, answers = dispatcher.call("POST", "/v1/triggers", codes)
    assert status == 200
    until(lambda: len(trial.journal()) == 100, "every code at a provider", timeout_s=20.0)
    at_a = {row["id"] for row in simulated.journal(trial.a)}
    assert at_a
    dispatcher.kill_sender(trial.a)
    killed_ms = time.time_ns() // 1_000_000
    ids = {answer["messages"][0]["message"] for answer in answers}
    ledger = run(settled(dispatcher.store_url, PARTITIONS, ids), timeout_s=90)
    latest_ms = max(ledger.ends[id_][0][0] for id_ in at_a) - killed_ms
    print(f"{len(at_a)} codes were at the dead sender's provider; the last ended {latest_ms} ms after the kill")
    assert {ledger.ends[id_][0][1] for id_ in ids} == {"sent"}
    assert latest_ms < 1_500, "a restart takes longer"
    times = accepted_times(simulated.journal(trial.b))
    assert {times[id_] for id_ in ids} == {1}, "each went to the other provider, once"
