"""The rival of the rules benchmark is no strawman: its script decides a stream of messages as our rules do."""

import contextlib
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random

import pytest

from actors.embedded import EmbeddedValkey
from bench.crowd import KINDS, LINES, NOW_MS, Crowd, Wanted, params_of
from bench.lua import Bare, RedisPy, arguments_of, keys_of, listed_of, script_of, state_of
from bench.rules import CASES, everybody, measure_ours
from dispatcher.documents import BlacklistEntry
from dispatcher.store.connection import Connection, connect
from tests.support import run

USERS = [f"user-{n}" for n in range(5)]
STEPS = 16_000
#: Mostly seconds, sometimes hours, at times days: so that every window fills and empties.
PAUSES_MS = [20_000] * 1_500 + [3_600_000] * 5 + [86_400_000 * 30]
#: Enough of what only the daily caps stop, from one line and from all.
TEMPLATES = [*KINDS, *["push_paid"] * 9, *["paid"] * 4, *["code"] * 4]
SENDERS = [*LINES, *[LINES[0]] * 2]
ENTRIES = [
    BlacklistEntry(user=USERS[0], channel="sms", type="repayment"),
    BlacklistEntry(user=USERS[1], line=LINES[0]),
    BlacklistEntry(address="openid", type="marketing", line=LINES[1]),
]


def wanted(rng: Random) -> Wanted:
    """Anything to anybody, often of a task, often the same words again."""
    task = rng.choice([None, None, "spring", "autumn", f"task-{rng.randrange(200)}"])
    params = params_of(Random(rng.randrange(4))) if rng.random() < 0.2 else params_of(rng)
    return Wanted(rng.choice(USERS), rng.choice(TEMPLATES), rng.choice(SENDERS), task, params)


@contextlib.asynccontextmanager
async def a_store() -> AsyncIterator[tuple[EmbeddedValkey, Connection]]:
    """An embedded Valkey with a connection to it."""
    with tempfile.TemporaryDirectory() as place:
        valkey = EmbeddedValkey(Path(place))
        connection = connect(await valkey.start())
        try:
            yield valkey, connection
        finally:
            await connection.aclose()
            await valkey.stop()


@pytest.mark.parametrize("client", ["redis-py", "bare"])
def test_the_script_decides_as_our_rules_do(client: str) -> None:
    async def scene() -> None:
        rng = Random(20261124)
        crowd = Crowd()
        rules = crowd.catalog.rules
        now_ms, calls, ours = NOW_MS - 3_600_000, [], []
        for entry in ENTRIES:
            crowd.catalog.blacklist.put(entry)
        for _ in range(STEPS):
            now_ms += rng.randrange(rng.choice(PAUSES_MS))
            one = wanted(rng)
            at = crowd.moment(one.user, now_ms)
            draft = crowd.draft(at, one)
            objection = crowd.decide(at, draft)
            ours.append("passed" if objection is None else objection.rule)
            calls.append((keys_of(draft.message), arguments_of(draft.message, now_ms, crowd.calendar)))
        async with a_store() as (valkey, connection):
            for key, entry in zip((f"bu:{USERS[0]}", f"bu:{USERS[1]}", "ba:openid"), ENTRIES, strict=True):
                await connection.set(key, listed_of(entry, None))
            sha = str(await connection.script_load(script_of(rules)))
            bare = await Bare.open(str(valkey.socket))
            speaking = bare if client == "bare" else RedisPy(connection)
            try:
                replies = await speaking.calls(sha, (calls[i : i + 256] for i in range(0, STEPS, 256)))
            finally:
                await bare.close()
        theirs = ["passed", *(rule.name for rule in rules)]
        differing = [(n, a, theirs[b]) for n, (a, b) in enumerate(zip(ours, replies, strict=True)) if a != theirs[b]]
        assert differing[:5] == []
        assert set(ours) == {"passed", *(rule.name for rule in rules)} - {"keyword"}
        assert ours.count("passed") > 1_000

    run(scene())


def test_the_measured_messages_pass_in_both() -> None:
    async def scene() -> None:
        rng = Random(3)
        crowd = Crowd()
        names = [f"user-{n}" for n in range(300)]
        states = {name: state_of(crowd.past(name, 10, rng)) for name in names}
        known = crowd.users()
        for case in CASES:
            crowd.forget(known)
            ours = measure_ours(crowd, everybody(case, names, rng), batch=64)  # raises when a rule objects
            assert 0 < ours.median_us <= ours.p99_us
        crowd.forget(known)
        drafts = [
            crowd.draft(crowd.moment(one.user, NOW_MS), one).message
            for case in CASES[1:]  # one of level 4, then marketing
            for one in everybody(case, names, rng)
        ]
        calls = [(keys_of(m), arguments_of(m, NOW_MS, crowd.calendar)) for m in drafts]
        async with a_store() as (_, connection):
            await connection.mset({f"u:{name}": state for name, state in states.items()})
            sha = str(await connection.script_load(script_of(crowd.catalog.rules)))
            assert await RedisPy(connection).calls(sha, [calls]) == [0] * 600

    run(scene())
