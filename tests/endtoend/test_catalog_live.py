"""A change of the catalog, of a user or of the blacklist: once it is answered, every decision obeys it."""

import json
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest

from dispatcher.client import Client, Problem
from tests.auditor import accepted_times, settled
from tests.endtoend.conftest import Pair
from tests.endtoend.recorder import Recorder, recording
from tests.endtoend.talk import NDJSON, PARTITIONS, accepted_in, connections, gather_all, notice, phone
from tests.live import Live, until
from tests.peer import Simulator
from tests.support import run

ROUNDS: Final = 50


def put(dispatcher: Live, path: str, document: Any) -> Any:
    """PUT that must work."""
    status, answer = dispatcher.call("PUT", path, document)
    assert status in (200, 201), answer
    return answer


def send(dispatcher: Live, trigger: Any) -> dict[str, Any]:
    """One trigger, answered with a result."""
    status, answer = dispatcher.call("POST", "/v1/triggers", trigger)
    assert status == 200, answer
    found: dict[str, Any] = answer
    return found


def message_of(result: dict[str, Any]) -> str:
    assert result["status"] == "accepted", result
    message: str = result["messages"][0]["message"]
    return message


def arrived(simulated: Simulator, message: str) -> dict[str, Any]:
    """The journal's record of an accepted message, once it is there."""
    found: list[dict[str, Any]] = []

    def look() -> bool:
        found[:] = [row for row in simulated.journal() if row["id"] == message and row["accepted"]]
        return bool(found)

    until(look, f"message {message} at a provider")
    return found[0]


def webhook(url: str, channel: str = "sms", **more: Any) -> dict[str, Any]:
    """A provider at `url`."""
    options = {"url": url, "allow_private": True}
    return {"kind": "webhook", "channel": channel, "max_batch": 100, "options": options, **more}


@pytest.fixture
def changed(pair: Pair) -> Iterator[Pair]:
    """Rules and routes are afterwards what they were."""
    dispatcher = pair[0]
    before = {path: dispatcher.call("GET", path)[1] for path in ("/v1/rules", "/v1/routes")}
    yield pair
    for path, document in before.items():
        put(dispatcher, path, document)


@pytest.fixture
def recorder(changed: Pair, mark: str) -> Iterator[Recorder]:
    """A provider that keeps texts; the route of the template `mark` leads there."""
    dispatcher = changed[0]
    with recording() as recorder:
        put(dispatcher, f"/v1/templates/{mark}", {"type": "notice", "channels": [{"channel": "sms", "text": "-"}]})
        put(dispatcher, f"/v1/providers/rec-{mark}", webhook(recorder.url))
        put(dispatcher, "/v1/routes", [{"match": {"templates": [mark]}, "providers": [{"id": f"rec-{mark}"}]}])
        yield recorder
        put(dispatcher, "/v1/routes", [])
        assert dispatcher.call("DELETE", f"/v1/providers/rec-{mark}")[0] == 204


def test_the_next_trigger_has_the_new_template(changed: Pair, recorder: Recorder, mark: str, area: int) -> None:
    dispatcher, _ = changed
    wanted = {}
    for n in range(ROUNDS):
        text = f"version {n} for {{n}}"
        put(dispatcher, f"/v1/templates/{mark}", {"type": "notice", "channels": [{"channel": "sms", "text": text}]})
        result = send(dispatcher, notice(f"{mark}-{n}", phone(area, n), mark, template=mark))
        wanted[message_of(result)] = f"version {n} for {mark}"
    until(lambda: recorder.texts().keys() >= wanted.keys(), "all messages to arrive")
    assert recorder.texts() == wanted


def test_the_next_trigger_obeys_the_new_rules(changed: Pair, mark: str, area: int) -> None:
    dispatcher, _ = changed
    to = phone(area, 1)
    statuses = []
    for limit in range(1, 21):
        rule = {"name": mark, "kind": "line_cap", "channels": ["sms"], "limit": limit, "window_s": 3_600}
        put(dispatcher, "/v1/rules", [rule])
        sent = [send(dispatcher, notice(f"{mark}-{limit}-{k}", to, f"{limit} {k}")) for k in range(2)]
        statuses += [(result["status"], result["reason"]) for result in sent]
    assert statuses == [("accepted", None), ("intercepted", "line_cap")] * 20
    put(dispatcher, "/v1/rules", [])
    assert send(dispatcher, notice(f"{mark}-free", to, "free"))["status"] == "accepted"


def test_the_next_message_takes_the_new_route(changed: Pair, mark: str, area: int) -> None:
    dispatcher, simulated = changed
    for n in range(20):
        provider = "sms-a" if n % 2 else "sms-b"
        put(dispatcher, "/v1/routes", [{"match": {"channels": ["sms"]}, "providers": [{"id": provider}]}])
        message = message_of(send(dispatcher, notice(f"{mark}-{n}", phone(area, n), mark)))
        assert arrived(simulated, message)["provider"] == provider


def test_a_new_provider_works_at_once(changed: Pair, mark: str, area: int) -> None:
    dispatcher, simulated = changed
    for n in range(2):
        name = f"new-{mark}-{n}"
        simulated.create(name)
        put(dispatcher, f"/v1/providers/{name}", webhook(simulated.at(name)))
        put(dispatcher, "/v1/routes", [{"match": {"channels": ["sms"]}, "providers": [{"id": name}]}])
        message = message_of(send(dispatcher, notice(f"{mark}-{n}", phone(area, n), mark)))
        assert arrived(simulated, message)["provider"] == name
        assert dispatcher.call("DELETE", f"/v1/providers/{name}")[0] == 409, "the route still names it"
        put(dispatcher, "/v1/routes", [])
        assert dispatcher.call("DELETE", f"/v1/providers/{name}")[0] == 204
        assert dispatcher.call("GET", f"/v1/providers/{name}")[0] == 404
    status, answer = dispatcher.call("PUT", "/v1/routes", [{"providers": [{"id": f"new-{mark}-0"}]}])
    assert (status, answer["errors"][0]["path"]) == (422, "[0].providers[0].id")


def test_traffic_leaves_a_disabled_provider(changed: Pair, mark: str, area: int) -> None:
    dispatcher, simulated = changed
    document = webhook(simulated.at("sms-a"))
    try:
        for round_, enabled in enumerate((True, False, True)):
            put(dispatcher, "/v1/providers/sms-a", {**document, "enabled": enabled})
            triggers = [notice(f"{mark}-{round_}-{n}", phone(area, n), f"{mark} {round_}") for n in range(60)]
            accepted = accepted_in([send(dispatcher, trigger) for trigger in triggers])
            assert len(accepted) == len(triggers)
            run(settled(dispatcher.store_url, PARTITIONS, accepted))
            rows = [row for row in simulated.journal() if row["id"] in accepted]
            at = Counter(row["provider"] for row in rows)
            assert at.keys() == ({"sms-a", "sms-b"} if enabled else {"sms-b"}), f"round {round_}"
            assert accepted_times(rows) == Counter(accepted)
    finally:
        put(dispatcher, "/v1/providers/sms-a", document)


def test_a_provider_is_switched_off_and_on_while_it_has_messages_in_hand(changed: Pair, mark: str, area: int) -> None:
    """Its senders are still draining when it is wanted again."""
    dispatcher, simulated = changed
    name = f"slow-{mark}"
    simulated.create(name, latency={"kind": "constant", "ms": 1_500})
    document = webhook(simulated.at(name))
    put(dispatcher, f"/v1/providers/{name}", document)
    put(dispatcher, "/v1/routes", [{"match": {"channels": ["sms"]}, "providers": [{"id": name}]}])
    first = message_of(send(dispatcher, notice(f"{mark}-first", phone(area, 0), mark)))
    until(lambda: [row["id"] for row in simulated.journal(name)] == [first], "the provider to have the message")
    [before] = [actor["pid"] for actor in dispatcher.actors("sender") if actor["provider"] == name]
    for _ in range(3):
        put(dispatcher, f"/v1/providers/{name}", {**document, "enabled": False})
        put(dispatcher, f"/v1/providers/{name}", document)
    simulated.create(name)
    meanwhile = message_of(send(dispatcher, notice(f"{mark}-meanwhile", phone(area, 1), mark)))

    def replaced() -> bool:
        return any(a["provider"] == name and a["pid"] != before for a in dispatcher.actors("sender"))

    until(replaced, "a new sender")
    last = message_of(send(dispatcher, notice(f"{mark}-last", phone(area, 2), mark)))
    ids = {first, meanwhile, last}
    ledger = run(settled(dispatcher.store_url, PARTITIONS, ids))
    assert [ledger.ends[id_][0][1] for id_ in (first, meanwhile, last)] == ["sent"] * 3
    assert accepted_times(simulated.journal(name)) == Counter(ids)
    put(dispatcher, "/v1/routes", [])
    assert dispatcher.call("DELETE", f"/v1/providers/{name}")[0] == 204


def test_a_deleted_template_is_unknown_at_once(pair: Pair, mark: str, area: int) -> None:
    dispatcher, _ = pair
    for n in range(10):
        document = {"type": "notice", "channels": [{"channel": "sms", "text": "{n}"}]}
        put(dispatcher, f"/v1/templates/{mark}", document)
        assert send(dispatcher, notice(f"{mark}-a{n}", phone(area, n), mark, template=mark))["status"] == "accepted"
        assert dispatcher.call("DELETE", f"/v1/templates/{mark}")[0] == 204
        result = send(dispatcher, notice(f"{mark}-b{n}", phone(area, n), mark, template=mark))
        assert (result["status"], result["reason"]) == ("rejected", "unknown_template")
    assert dispatcher.call("GET", f"/v1/templates/{mark}")[0] == 404


def test_edits_are_guarded_and_remembered(pair: Pair, mark: str) -> None:
    dispatcher, _ = pair
    path = f"/v1/templates/{mark}"
    began = datetime.now(UTC)

    def ask(method: str, document: Any, **headers: str) -> tuple[int, str | None]:
        body = None if document is None else json.dumps(document).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(dispatcher.url + path, body, named, method=method)
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                return response.status, response.headers["etag"]
        except urllib.error.HTTPError as error:
            with error:
                kind, code, tag = error.headers.get_content_type(), error.code, error.headers["etag"]
        assert kind == "application/problem+json"
        return code, tag

    def template(text: str) -> dict[str, Any]:
        return {"type": "notice", "channels": [{"channel": "sms", "text": text}]}

    assert ask("PUT", template("0"), if_match='"1"')[0] == 412, "there is nothing to match"
    status, first = ask("PUT", template("1"), if_none_match="*")
    assert (status, first is not None) == (201, True)
    assert ask("PUT", template("x"), if_none_match="*")[0] == 412
    assert ask("GET", None) == (200, first)
    status, second = ask("PUT", template("2"), if_match=first or "")
    assert status == 200
    assert second != first
    assert ask("PUT", template("x"), if_match=first or "") == (412, second)
    assert ask("DELETE", None, if_match=first or "")[0] == 412
    assert ask("PUT", template("3"))[0] == 200, "without a condition the last writer wins"
    assert ask("DELETE", None)[0] == 204
    status, versions = dispatcher.call("GET", f"{path}/versions")
    assert status == 200
    texts = [v["document"] and v["document"]["channels"][0]["text"] for v in versions]
    assert texts == [None, "3", "2", "1"]
    assert [v["version"] for v in versions] == sorted((v["version"] for v in versions), reverse=True)
    assert {v["who"] for v in versions} == {"anonymous"}
    for version in versions:
        assert began - timedelta(seconds=1) <= datetime.fromisoformat(version["at"]) <= datetime.now(UTC)


def test_concurrent_guarded_edits_lose_nothing(pair: Pair, mark: str) -> None:
    """Read, add a word, write back if unchanged: with ten editors at once every word is there in the end."""
    dispatcher, _ = pair
    path = f"/v1/keywords/{mark}"
    put(dispatcher, path, {"words": ["start"]})
    refusals: set[int] = set()

    async def edit(client: Client, word: str) -> None:
        while True:
            current, tag = await tagged(client)
            try:
                await client.put(path, {"words": [*current["words"], word]}, if_match=tag)
            except Problem as problem:
                refusals.add(problem.status)
            else:
                return

    async def tagged(client: Client) -> tuple[Any, str]:
        versions = await client.get(f"{path}/versions")
        return versions[0]["document"], f'"{versions[0]["version"]}"'

    async def go() -> None:
        async with Client(dispatcher.url) as client:
            await gather_all([edit(client, f"w{n}") for n in range(10)])

    run(go())
    assert refusals <= {412}
    words = dispatcher.call("GET", path)[1]["words"]
    assert sorted(words) == ["start", *sorted(f"w{n}" for n in range(10))]


def test_the_next_trigger_goes_to_the_users_new_address(pair: Pair, mark: str, area: int) -> None:
    dispatcher, simulated = pair
    wanted = {}
    for n in range(ROUNDS):
        user = f"{mark}-{n % 10}"  # five each: the line's cap
        put(dispatcher, f"/v1/users/{user}", {"addresses": {"sms": [phone(area, n)]}})
        trigger = {"id": f"{mark}-{n}", "user": user, "template": "notice", "line": "wallet", "params": {"n": n}}
        wanted[message_of(send(dispatcher, trigger))] = phone(area, n)
    run(settled(dispatcher.store_url, PARTITIONS, set(wanted)))
    assert {row["id"]: row["to"] for row in simulated.journal() if row["id"] in wanted} == wanted
    assert dispatcher.call("DELETE", f"/v1/users/{mark}-0")[0] == 204
    trigger = {"id": f"{mark}-gone", "user": f"{mark}-0", "template": "notice", "line": "loan", "params": {"n": 1}}
    assert send(dispatcher, trigger)["reason"] == "no_address:sms"


async def bulk(url: str, body: bytes, path: str = "/v1/users") -> list[Any]:
    """The answer to a bulk upsert, line by line."""
    headers = {"content-type": NDJSON}
    async with connections(url, 1) as [session], session.post(path, data=body, headers=headers) as response:
        assert response.status == 200
        return [json.loads(line) for line in (await response.read()).splitlines()]


def test_users_in_bulk(pair: Pair, mark: str, area: int) -> None:
    dispatcher, simulated = pair
    users: list[Any] = [{"user": f"{mark}-{n}", "addresses": {"sms": [phone(area, n)]}} for n in range(1_200)]
    users[7] = {"user": f"{mark}-7", "addresses": {"fax": ["1"]}}
    users[600] = {"addresses": {}}
    body = b"".join(json.dumps(user).encode() + b"\n" for user in users) + b"not json\n"
    *errors, last = run(bulk(dispatcher.url, body))
    assert last == {"summary": {"total": 1_201, "stored": 1_198, "failed": 3}}
    assert [(error["seq"], error.get("id")) for error in errors] == [(7, f"{mark}-7"), (600, None), (1_200, None)]
    assert "addresses" in errors[0]["error"]
    assert "user" in errors[1]["error"]
    ids = {}
    for n in (0, 6, 8, 601, 1_199):
        trigger = {"id": f"{mark}-{n}", "user": f"{mark}-{n}", "template": "notice", "line": "wallet"}
        ids[message_of(send(dispatcher, {**trigger, "params": {"n": n}}))] = phone(area, n)
    run(settled(dispatcher.store_url, PARTITIONS, set(ids)))
    assert {row["id"]: row["to"] for row in simulated.journal() if row["id"] in ids} == ids
    assert dispatcher.call("GET", f"/v1/users/{mark}-7")[0] == 404


def test_the_blacklist_counts_from_the_next_trigger(pair: Pair, mark: str, area: int) -> None:
    dispatcher, _ = pair
    for n in range(10):
        to = phone(area, n)
        status, entry = dispatcher.call("POST", "/v1/blacklist", {"address": f"0086{to[3:]}", "channel": "sms"})
        assert status == 201
        blocked = send(dispatcher, notice(f"{mark}-b{n}", to, f"{mark} {n}"))
        assert (blocked["status"], blocked["reason"]) == ("filtered", "blacklist")
        code = {"id": f"{mark}-c{n}", "to": {"sms": to}, "template": "code", "params": {"code": f"{n}"}}
        assert send(dispatcher, code)["status"] == "accepted", "any type does not mean verification"
        assert dispatcher.call("GET", f"/v1/blacklist?address=%2B86{to[3:]}")[1][0]["id"] == entry["id"]
        assert dispatcher.call("DELETE", f"/v1/blacklist/{entry['id']}")[0] == 204
        assert send(dispatcher, notice(f"{mark}-a{n}", to, f"{mark} {n}"))["status"] == "accepted"


def test_entries_in_bulk_count_from_the_next_trigger(pair: Pair, mark: str, area: int) -> None:
    """By user and by address, over several batches; a deletion by id counts as soon."""
    dispatcher, _ = pair
    entries: list[Any] = [{"user": f"{mark}-{n}", "type": "notice", "why": "bulk"} for n in range(1_300)]
    entries += [{"address": phone(area, n), "channel": "sms"} for n in range(1_300)]
    entries[3] = {"user": f"{mark}-3", "chanel": "sms"}
    body = b"".join(json.dumps(entry).encode() + b"\n" for entry in entries)
    *errors, last = run(bulk(dispatcher.url, body, "/v1/blacklist?progress=true"))
    assert last == {"summary": {"total": 2_600, "stored": 2_599, "failed": 1}}
    assert [error["seq"] for error in errors if "progress" not in error] == [3]

    def to_user(n: int, word: str) -> dict[str, Any]:
        to = phone(area + 1, n)  # an address that nobody has listed
        trigger = notice(f"{mark}-{word}{n}", to, f"{mark} {word} {n}", user=f"{mark}-{n}")
        return send(dispatcher, trigger)

    for n in (0, 499, 500, 1_299):
        blocked = to_user(n, "a"), send(dispatcher, notice(f"{mark}-b{n}", phone(area, n), f"{mark} b {n}"))
        assert [(result["status"], result["reason"]) for result in blocked] == [("filtered", "blacklist")] * 2
        [found] = dispatcher.call("GET", f"/v1/blacklist?user={mark}-{n}")[1]
        assert (found["user"], found["why"]) == (f"{mark}-{n}", "bulk")
        assert dispatcher.call("GET", f"/v1/blacklist/{found['id']}") == (200, found)
        assert dispatcher.call("DELETE", f"/v1/blacklist/{found['id']}")[0] == 204
        assert to_user(n, "c")["status"] == "accepted"
        assert dispatcher.call("GET", f"/v1/blacklist?user={mark}-{n}") == (200, [])
    assert to_user(3, "d")["status"] == "accepted"


def test_a_word_counts_from_the_next_trigger(changed: Pair, mark: str, area: int) -> None:
    """In a list short or long; a list that a rule names stays, and a rule names only lists there are."""
    dispatcher, _ = changed
    rule = {"name": mark, "kind": "keyword", "list": mark}
    rules = [*dispatcher.call("GET", "/v1/rules")[1]]
    status, problem = dispatcher.call("PUT", "/v1/rules", [*rules, rule])
    assert (status, problem["errors"][0]["path"]) == (422, f"[{len(rules)}].list")
    put(dispatcher, f"/v1/keywords/{mark}", {"words": []})
    put(dispatcher, "/v1/rules", [rule, *rules])
    for n, others in enumerate((0, 0, 20_000, 0)):
        word = f"w{mark}{n}"
        said = notice(f"{mark}-{n}", phone(area, n), f"{mark} {word.upper()}")
        assert send(dispatcher, {**said, "id": f"{mark}-a{n}"})["status"] == "accepted"
        put(dispatcher, f"/v1/keywords/{mark}", {"words": [*(f"{mark}other{i}" for i in range(others)), word]})
        result = send(dispatcher, said)
        assert (result["status"], result["reason"]) == ("intercepted", "keyword")
    status, problem = dispatcher.call("DELETE", f"/v1/keywords/{mark}")
    assert (status, problem["errors"][0]["path"]) == (409, "rules: [0].list")
    put(dispatcher, "/v1/rules", rules)
    assert dispatcher.call("DELETE", f"/v1/keywords/{mark}")[0] == 204


def test_a_blacklist_entry_expires(pair: Pair, mark: str, area: int) -> None:
    dispatcher, _ = pair
    to = phone(area, 1)
    expires = datetime.now(UTC) + timedelta(seconds=2)
    entry = {"address": to, "type": "notice", "expires_at": expires.isoformat(), "why": "a test"}
    assert dispatcher.call("POST", "/v1/blacklist", entry)[0] == 201
    n = 0
    deadline = time.monotonic() + 30
    while (result := send(dispatcher, notice(f"{mark}-{n}", to, n)))["status"] != "accepted":
        assert (result["status"], result["reason"]) == ("filtered", "blacklist")
        assert time.monotonic() < deadline
        n += 1
        time.sleep(0.02)
    assert n > 0
    assert datetime.now(UTC) >= expires


def test_a_restart_keeps_everything(changed: Pair, mark: str, area: int) -> None:
    dispatcher, simulated = changed
    to = phone(area, 1)
    put(dispatcher, f"/v1/templates/{mark}", {"type": "notice", "channels": [{"channel": "sms", "text": "{n}"}]})
    put(dispatcher, f"/v1/lines/{mark}", {"name": "kept", "quota": 7})
    put(dispatcher, f"/v1/keywords/{mark}", {"words": ["词"]})
    put(dispatcher, f"/v1/users/{mark}", {"addresses": {"sms": [to]}, "tags": {"city": "beijing"}})
    put(dispatcher, "/v1/routes", [{"match": {"lines": [mark]}, "providers": [{"id": "sms-b"}], "mode": "pinned"}])
    entry = dispatcher.call("POST", "/v1/blacklist", {"user": f"{mark}-not", "why": "asked"})[1]
    unwanted = notice(f"{mark}-not", phone(area, 2), mark, user=f"{mark}-not")
    assert send(dispatcher, unwanted)["status"] == "filtered"
    trigger = {"user": mark, "template": mark, "line": mark}
    answers = [send(dispatcher, {**trigger, "id": f"{mark}-{n}", "params": {"n": n}}) for n in range(6)]
    assert [answer["status"] for answer in answers] == ["accepted"] * 5 + ["intercepted"]
    paths = [f"/v1/{kind}" for kind in ("templates", "lines", "keywords", "providers", "rules", "routes")]
    paths += [f"/v1/templates/{mark}/versions", f"/v1/users/{mark}", f"/v1/blacklist/{entry['id']}"]
    before = {path: dispatcher.call("GET", path) for path in paths}
    assert {status for status, _ in before.values()} == {200}

    assert dispatcher.down() == 0
    dispatcher.up()

    assert {path: dispatcher.call("GET", path) for path in paths} == before
    assert dispatcher.call("GET", f"/v1/blacklist?user={mark}-not")[1] == [before[f"/v1/blacklist/{entry['id']}"][1]]
    result = send(dispatcher, {**unwanted, "id": f"{mark}-not-2"})
    assert (result["status"], result["reason"]) == ("filtered", "blacklist")
    again = [send(dispatcher, {**trigger, "id": f"{mark}-{n}", "params": {"n": n}}) for n in range(6)]
    assert {answer["status"] for answer in again} == {"duplicate"}
    for answer, first in zip(again, answers, strict=True):
        assert answer["first"] == {"status": first["status"], "reason": first["reason"]}
    assert [a["messages"] for a in again[:5]] == [a["messages"] for a in answers[:5]]
    sixth = send(dispatcher, {**trigger, "id": f"{mark}-6", "params": {"n": 6}})
    assert (sixth["status"], sixth["reason"]) == ("intercepted", "line_cap"), "counters are kept"
    run(settled(dispatcher.store_url, PARTITIONS, accepted_in(answers)))
    rows = [row for row in simulated.journal() if row["to"] == to]
    assert {row["provider"] for row in rows} == {"sms-b"}
    assert accepted_times(rows) == Counter(accepted_in(answers))
