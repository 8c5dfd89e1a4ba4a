"""What a provider refused can be looked at, and sent again once the provider is mended: once, and within the caps."""

import os
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from dispatcher.store import keys
from tests.auditor import accepted_times
from tests.endtoend.conftest import Pair
from tests.endtoend.talk import PARTITIONS, notice, phone
from tests.live import Live, until

PATH = "/v1/dead-letters"
MANY = 3_000


@pytest.fixture
def refusing(pair: Pair, mark: str) -> Iterator[str]:
    """A provider that refuses everything, and the template of the same name that goes there; a cap of one."""
    dispatcher, simulated = pair
    name = f"dead-{mark}"
    before = {path: dispatcher.call("GET", path)[1] for path in ("/v1/rules", "/v1/routes")}
    simulated.create(name, rejected=1.0)
    provider = {
        "kind": "webhook", "channel": "sms", "max_batch": 100,
        "options": {"url": simulated.at(name), "allow_private": True},
    }  # fmt: skip
    put(dispatcher, f"/v1/templates/{name}", {"type": "notice", "channels": [{"channel": "sms", "text": "{n}"}]})
    put(dispatcher, f"/v1/providers/{name}", provider)
    put(dispatcher, "/v1/routes", [{"match": {"templates": [name]}, "providers": [{"id": name}]}])
    rule = {"name": mark, "kind": "line_cap", "channels": ["sms"], "limit": 1, "window_s": 3_600}
    put(dispatcher, "/v1/rules", [rule])
    yield name
    for path, document in before.items():
        put(dispatcher, path, document)
    assert dispatcher.call("DELETE", f"/v1/providers/{name}")[0] == 204


def put(dispatcher: Live, path: str, document: Any) -> None:
    status, answer = dispatcher.call("PUT", path, document)
    assert status in (200, 201), answer


def letters(dispatcher: Live, template: str) -> list[dict[str, Any]]:
    """All letters of a template, page by page."""
    found: list[dict[str, Any]] = []
    cursor = ""
    while True:
        status, page = dispatcher.call("GET", f"{PATH}?template={template}&limit=150{cursor}")
        assert status == 200, page
        found += page["letters"]
        if page["next"] is None:
            return found
        cursor = f"&cursor={page['next']}"


def kept(store: "redis.Redis") -> int:
    """How many letters the store holds."""
    counts: list[Any] = [store.zcard(keys.letter_index(p)) for p in range(PARTITIONS)]
    return sum(counts)


def replay(dispatcher: Live, **order: Any) -> dict[str, Any]:
    status, answer = dispatcher.call("POST", f"{PATH}/replay", order)
    assert status == 200, answer
    told: dict[str, Any] = answer
    return told


def test_a_refused_message_is_explained_and_sent_again_once(pair: Pair, refusing: str, mark: str, area: int) -> None:
    dispatcher, simulated = pair
    for n in (1, 2):  # the first one's slot is free again when it was refused
        trigger = notice(f"{mark}-{n}", phone(area, 1), f"{mark} {n}", template=refusing, user=f"{mark}-u")
        status, result = dispatcher.call("POST", "/v1/triggers", trigger)
        assert (status, result["status"]) == (200, "accepted"), result
        until(lambda number=n: len(letters(dispatcher, refusing)) == number, f"letter {n}")
    second, first = letters(dispatcher, refusing)
    assert (first["trigger"], second["trigger"]) == (f"{mark}-1", f"{mark}-2")
    assert second["message"] == result["messages"][0]["message"]
    told = (second["provider"], second["code"], second["outcome"], second["attempts"], second["user"])
    assert told == (refusing, "CONTENT_ILLEGAL", "failed", 1, f"{mark}-u")
    assert second["to"] == f"{phone(area, 1)[:-8]}****{phone(area, 1)[-4:]}"
    assert letters(dispatcher, "nothing") == []

    simulated.create(refusing)
    assert replay(dispatcher, filter={"template": refusing, "provider": "another"})["replayed"] == 0
    wanted = {"template": refusing, "provider": refusing, "outcome": "failed"}
    assert replay(dispatcher, filter=wanted) == {
        "replayed": 1, "blocked": {"line_cap": 1}, "skipped": {}, "next": None,
    }  # fmt: skip
    until(lambda: sum(row["accepted"] for row in simulated.journal(refusing)) == 1, "the message at its provider")
    assert letters(dispatcher, refusing) == [first]
    assert replay(dispatcher, filter=wanted)["replayed"] == 0
    assert replay(dispatcher, ids=[second["message"], first["message"]]) == {
        "replayed": 0, "blocked": {"line_cap": 1}, "skipped": {"gone": 1}, "next": None,
    }  # fmt: skip
    put(dispatcher, "/v1/rules", [])
    assert replay(dispatcher, filter=wanted)["replayed"] == 1
    until(lambda: sum(row["accepted"] for row in simulated.journal(refusing)) == 2, "the other one, too")
    assert letters(dispatcher, refusing) == []


def test_a_large_replay_is_sent_once_though_the_shard_is_killed(
    pair: Pair, refusing: str, mark: str, area: int
) -> None:
    dispatcher, simulated = pair
    triggers = [notice(f"{mark}-{n}", phone(area, n), f"{mark} {n}", template=refusing) for n in range(MANY)]
    for at in range(0, MANY, 1_000):
        for result in dispatcher.call("POST", "/v1/triggers", triggers[at : at + 1_000])[1]:
            assert result["status"] == "accepted", result
    until(lambda: len(letters(dispatcher, refusing)) == MANY, "all letters")
    [shard] = dispatcher.actors("shard")
    store = redis.Redis(unix_socket_path=dispatcher.store_url.removeprefix("unix://"))
    before = kept(store)
    simulated.create(refusing)
    told: list[dict[str, Any]] = []
    asking = [
        threading.Thread(target=lambda: told.append(replay(dispatcher, filter={"template": refusing}, limit=MANY)))
        for _ in range(3)
    ]
    for thread in asking:
        thread.start()
    until(lambda: kept(store) < before, "the first of them to be gone")
    os.kill(shard["pid"], signal.SIGKILL)
    store.close()
    for thread in asking:
        thread.join()
    assert any("shard_unavailable" in answer["skipped"] and answer["next"] for answer in told), "it came too late"
    assert len(told) == 3

    def everything_left() -> bool:
        replay(dispatcher, filter={"template": refusing}, limit=MANY)
        return letters(dispatcher, refusing) == []

    until(everything_left, "every letter to be sent again", 60)
    assert dispatcher.actors("shard")[0]["restarts"] == shard["restarts"] + 1
    until(lambda: sum(row["accepted"] for row in simulated.journal(refusing)) >= MANY, "everything to arrive")
    rows = [row for row in simulated.journal(refusing) if row["accepted"]]
    assert Counter(row["to"] for row in rows) == Counter(phone(area, n) for n in range(MANY))
    assert set(accepted_times(rows).values()) == {1}
