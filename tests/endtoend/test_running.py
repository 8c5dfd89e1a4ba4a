"""Starting, stopping, waiting and giving up, as operators and callers see it."""

import json
import signal
import socket
import statistics
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest

from tests.auditor import accepted_times, settled
from tests.commands import command
from tests.endtoend.conftest import Pair
from tests.endtoend.talk import PARTITIONS, accepted_in, lines_of, notice, phone, samples
from tests.endtoend.test_catalog_live import arrived, message_of, put, send, webhook
from tests.live import Live, alive, until
from tests.support import run

CODES: Final = 40
STUCK: Final = 500


def outcome(dispatcher: Live, message: str) -> str:
    """How the message ended, once it has."""
    return run(settled(dispatcher.store_url, PARTITIONS, {message})).ends[message][0][1]


@pytest.fixture
def route_of_its_own(pair: Pair, mark: str) -> Iterator[str]:
    """A simulated SMS provider that only messages of the line `mark` take."""
    dispatcher, simulated = pair
    simulated.create(mark)
    put(dispatcher, f"/v1/lines/{mark}", {})
    put(dispatcher, f"/v1/providers/{mark}", webhook(simulated.at(mark), timeout_s=5.0))
    put(
        dispatcher,
        "/v1/routes",
        [
            {"match": {"lines": [mark]}, "providers": [{"id": mark}]},
            {"match": {"channels": ["sms"]}, "providers": [{"id": "sms-a"}, {"id": "sms-b"}]},
        ],
    )
    yield mark
    put(dispatcher, "/v1/routes", [])
    dispatcher.call("DELETE", f"/v1/providers/{mark}")


# -- starts that cannot be


def test_a_second_dispatcher_on_the_same_data_is_refused(pair: Pair) -> None:
    dispatcher, _ = pair
    done = command("up", "--config", str(dispatcher.config))
    assert done.returncode == 1
    assert "another dispatcher" in done.stderr
    assert str(dispatcher.data) in done.stderr
    assert "ready" not in done.stdout
    assert "Traceback" not in done.stderr
    assert dispatcher.call("GET", "/readyz")[0] == 200


def test_doctor_and_check_find_nothing_wrong(pair: Pair) -> None:
    for words in (["doctor"], ["config", "check"]):
        done = command(*words, "--config", str(pair[0].config))
        assert done.returncode == 0, done.stdout + done.stderr


def test_doctor_sends_through_a_provider_of_the_catalog_while_it_runs(pair: Pair, area: int) -> None:
    dispatcher, simulated = pair
    to = phone(area, 1)
    words = ("--template", "notice", "--param", "n=7", "--yes")
    done = command("doctor", "--config", str(dispatcher.config), "--send-test", "sms-b", "--to", to, *words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "of the catalog" in done.stdout
    [row] = [row for row in simulated.journal("sms-b") if row["to"] == to]
    assert (row["template"], row["line"], row["accepted"]) == ("notice", "doctor", True)


# -- looking at it


def test_the_topology_names_every_actor(pair: Pair) -> None:
    topology = pair[0].topology()
    names = {actor["name"]: actor for actor in topology["actors"]}
    expected = {"shard:0", "router:0", "gateway:0", "gateway:1", "sender:sms-a:0", "sender:sms-b:0", "sender:push-a:0"}
    assert names.keys() >= expected
    for name in expected:
        assert alive(names[name]["pid"]), name
        assert names[name]["role"] == name.split(":")[0]
        assert names[name]["node"] in topology["nodes"]
        assert names[name]["restarts"] >= 0  # other tests have killed some: see test_dead_letters.py
    assert len({actor["pid"] for actor in names.values()}) == len(names)
    partitions = topology["partitions"]
    assert [partition["id"] for partition in partitions] == list(range(PARTITIONS))
    assert {partition["owner"] for partition in partitions} == {"shard:0"}
    assert min(partition["epoch"] for partition in partitions) >= 1
    assert names["shard:0"]["backlog"] == {"urgent": 0, "normal": 0, "bulk": 0}


def test_metrics_count_what_happened(pair: Pair, mark: str, area: int) -> None:
    dispatcher, simulated = pair
    before = samples(dispatcher)
    triggers = [notice(f"{mark}-{n}", phone(area, 1), f"{mark} {n}") for n in range(8)]
    answers = [send(dispatcher, trigger) for trigger in triggers]
    send(dispatcher, triggers[0])
    send(dispatcher, notice(f"{mark}-bad", phone(area, 1), mark, template=f"none-{mark}"))
    run(settled(dispatcher.store_url, PARTITIONS, accepted_in(answers)))
    after = samples(dispatcher)

    def more(name: str, **labels: str) -> float:
        key = name, tuple(sorted(labels.items()))
        return after.get(key, 0.0) - before.get(key, 0.0)

    assert more("dispatcher_triggers_total", status="accepted") == 5
    assert more("dispatcher_triggers_total", status="intercepted") == 3
    assert more("dispatcher_triggers_total", status="duplicate") == 1
    assert more("dispatcher_triggers_total", status="rejected") == 1
    assert more("dispatcher_blocked_total", rule="line_cap_sms", family="intercept", channel="sms") == 3
    answered = [more("dispatcher_answers_total", provider=name, answer="accepted") for name in ("sms-a", "sms-b")]
    assert answered == [len(simulated.journal(name)) for name in ("sms-a", "sms-b")]
    assert sum(answered) == 5
    assert more("dispatcher_outcomes_total", channel="sms", lane="normal", outcome="sent") == 5
    assert more("dispatcher_end_to_end_seconds_count", lane="normal") == 5
    assert sum(more("dispatcher_send_seconds_count", provider=name) for name in ("sms-a", "sms-b")) >= 1
    shares = [after["dispatcher_provider_share", (("provider", name),)] for name in ("sms-a", "sms-b", "push-a")]
    assert shares[2] == 1.0
    assert sum(shares[:2]) == pytest.approx(1.0)
    for lane in ("urgent", "normal", "bulk"):
        assert after["dispatcher_outbox_messages", (("lane", lane),)] == 0


def test_a_file_is_sent(pair: Pair, tmp_path: Path, mark: str, area: int) -> None:
    dispatcher, simulated = pair
    file, out = tmp_path / "triggers.ndjson", tmp_path / "results.ndjson"
    file.write_bytes(lines_of(notice(f"{mark}-{n}", phone(area, n), f"{mark} {n}") for n in range(300)))
    done = command("send", str(file), "--url", dispatcher.url, "--results", "all", "--out", str(out))
    assert done.returncode == 0, done.stdout + done.stderr
    results = [json.loads(line) for line in out.read_text().splitlines()]
    assert sorted(result["line"] for result in results) == list(range(1, 301))
    ids = accepted_in(results)
    assert len(ids) == 300
    run(settled(dispatcher.store_url, PARTITIONS, ids))
    assert {id_: n for id_, n in accepted_times(simulated.journal()).items() if id_ in ids} == dict.fromkeys(ids, 1)
    assert command("send", str(file), "--url", dispatcher.url).returncode == 0, "all duplicates"
    file.write_bytes(lines_of([{"template": f"none-{mark}", "user": "u"}]))
    done = command("send", str(file), "--url", dispatcher.url)
    assert done.returncode == 1
    assert "unknown_template" in done.stdout


# -- time


def test_a_trigger_for_later_is_sent_when_due(pair: Pair, mark: str, area: int) -> None:
    dispatcher, simulated = pair
    due = datetime.now(UTC) + timedelta(seconds=2)
    result = send(dispatcher, notice(mark, phone(area, 1), mark, send_at=due.isoformat()))
    message = message_of(result)
    told = datetime.fromisoformat(result["messages"][0]["due"])
    assert abs(told - due) < timedelta(milliseconds=2)
    row = arrived(simulated, message)
    late_s = row["first_s"] - due.timestamp()
    assert 0 <= late_s < 10


def test_what_expires_while_the_provider_is_down_is_never_sent(
    pair: Pair, route_of_its_own: str, mark: str, area: int
) -> None:
    dispatcher, simulated = pair
    simulated.patch(mark, transient=1.0)
    trigger = notice(mark, phone(area, 1), mark, line=route_of_its_own, ttl_s=1.5)
    began = time.time()
    message = message_of(send(dispatcher, trigger))
    assert outcome(dispatcher, message) == "expired"
    ledger = run(settled(dispatcher.store_url, PARTITIONS, {message}))
    at_ms, _, refunded = ledger.ends[message][0]
    assert refunded
    assert at_ms / 1000 < began + 30
    simulated.create(mark)
    later = message_of(send(dispatcher, notice(f"{mark}-2", phone(area, 2), mark, line=route_of_its_own)))
    assert arrived(simulated, later)["provider"] == mark, "the provider is found to be well again"
    assert accepted_times(simulated.journal(mark))[message] == 0


# -- plans and lanes


def test_a_plan_falls_to_its_next_channel_and_the_slot_comes_back(pair: Pair, mark: str, area: int) -> None:
    dispatcher, simulated = pair
    content = [{"channel": "push", "title": "t", "body": "{n}"}, {"channel": "sms", "text": "{n}"}]
    put(dispatcher, f"/v1/templates/{mark}", {"type": "notice", "channels": content})
    put(dispatcher, f"/v1/users/{mark}", {"addresses": {"push": [{"token": mark * 4}], "sms": [phone(area, 1)]}})
    simulated.patch("push-a", rejected=1.0)

    def trigger(n: int, **more: Any) -> dict[str, Any]:
        return {"id": f"{mark}-{n}", "user": mark, "template": mark, "line": "wallet", "params": {"n": n}, **more}

    first = [send(dispatcher, trigger(n)) for n in range(5)]
    assert {(r["status"], r["messages"][0]["channel"]) for r in first} == {("accepted", "push")}
    pushed = accepted_in(first)
    ledger = run(settled(dispatcher.store_url, PARTITIONS, pushed))
    assert {(ledger.ends[id_][0][1], ledger.ends[id_][0][2]) for id_ in pushed} == {("failed", True)}

    def by_sms() -> list[dict[str, Any]]:
        return [row for row in simulated.journal() if row["to"] == phone(area, 1) and row["accepted"]]

    until(lambda: len(by_sms()) == 5, "five text messages instead")
    assert {row["template"] for row in by_sms()} == {mark}
    assert pushed.isdisjoint(row["id"] for row in by_sms())
    sixth = send(dispatcher, trigger(5, channels=["sms"]))
    assert (sixth["status"], sixth["reason"]) == ("intercepted", "line_cap"), "the later attempts are counted"

    simulated.patch("push-a", rejected=0.0)
    push = [send(dispatcher, trigger(n, channels=["push"])) for n in range(10, 31)]
    assert [r["status"] for r in push] == ["accepted"] * 20 + ["intercepted"], "20 a day, the failed ones refunded"


def test_codes_flow_while_marketing_is_stuck(pair: Pair, mark: str, area: int) -> None:
    dispatcher, simulated = pair
    name = f"stuck-{mark}"
    simulated.create(name, hang=1.0)
    put(dispatcher, f"/v1/providers/{name}", {**webhook(simulated.at(name), timeout_s=8.0), "max_batch": 1})
    others = {"match": {"channels": ["sms"]}, "providers": [{"id": "sms-a"}, {"id": "sms-b"}]}
    put(dispatcher, "/v1/routes", [{"match": {"types": ["marketing"]}, "providers": [{"id": name}]}, others])
    sale = [
        {"id": f"{mark}-s{n}", "to": {"sms": phone(area, n)}, "template": "sale", "line": "loan", "params": {"n": n}}
        for n in range(STUCK)
    ]
    status, answers = dispatcher.call("POST", "/v1/triggers", sale)
    assert (status, {answer["status"] for answer in answers}) == (200, {"accepted"})
    until(lambda: len(simulated.journal(name)) > 0, "marketing to be stuck")
    sent_s = {}
    for n in range(CODES):
        to = phone(area, 5_000 + n)
        code = {"id": f"{mark}-c{n}", "to": {"sms": to}, "template": "code", "params": {"code": f"{n}"}}
        began_s = time.time()
        sent_s[message_of(send(dispatcher, code))] = began_s
    until(lambda: {r["id"] for r in simulated.journal() if r["accepted"]} >= sent_s.keys(), "all codes")
    took_s = sorted(row["first_s"] - sent_s[row["id"]] for row in simulated.journal() if row["id"] in sent_s)
    print(f"codes: median {statistics.median(took_s):.4f} s, slowest {took_s[-1]:.4f} s")
    assert statistics.median(took_s) < 1.0
    assert took_s[-1] < 8.0, "none waited for a stuck request"
    assert backlog(dispatcher)["bulk"] > 0, "marketing was stuck all the while"
    simulated.create(name)
    put(dispatcher, f"/v1/providers/{name}", {**webhook(simulated.at(name), timeout_s=1.0), "max_batch": 100})
    put(dispatcher, "/v1/routes", [])


def backlog(dispatcher: Live) -> dict[str, int]:
    found: dict[str, int] = dispatcher.actors("shard")[0]["backlog"]
    return found


# -- ends; these come last, each starts it again


class SlowStream(threading.Thread):
    """A caller that writes a line now and then and never ends its request."""

    def __init__(self, dispatcher: Live, mark: str, area: int) -> None:
        super().__init__(daemon=True)
        self.sent = 0
        self.answer = b""
        self._address = dispatcher.url.removeprefix("http://").split(":")
        self._mark, self._area = mark, area

    def run(self) -> None:
        with socket.create_connection((self._address[0], int(self._address[1])), 60) as sock:
            sock.sendall(
                b"POST /v1/triggers HTTP/1.1\r\nHost: t\r\nContent-Type: application/x-ndjson\r\n"
                b"Transfer-Encoding: chunked\r\n\r\n"
            )
            sock.settimeout(0.05)
            end = time.monotonic() + 60
            while time.monotonic() < end:
                try:
                    data = sock.recv(65_536)
                except TimeoutError:
                    self._write(sock)
                    continue
                except OSError:
                    return
                if not data:
                    return
                self.answer += data

    def _write(self, sock: Any) -> None:
        line = lines_of([notice(f"{self._mark}-{self.sent}", phone(self._area, self.sent), self.sent)])
        try:
            sock.sendall(b"%x\r\n%b\r\n" % (len(line), line))
        except OSError:
            return
        self.sent += 1

    def lines(self) -> list[dict[str, Any]]:
        """What was answered, without the chunks' frames."""
        return [json.loads(line) for line in self.answer.split(b"\n") if line.startswith(b'{"')]


def test_a_drain_ends_streams_with_their_summary(pair: Pair, mark: str, area: int) -> None:
    dispatcher, simulated = pair
    due = datetime.now(UTC) + timedelta(seconds=3)
    parked = message_of(send(dispatcher, notice(f"{mark}-p", phone(area, 9_000), mark, send_at=due.isoformat())))
    caller = SlowStream(dispatcher, mark, area)
    caller.start()
    until(lambda: len(caller.lines()) >= 3, "the stream to be answered")
    assert dispatcher.down() == 0
    caller.join(30)
    *results, last = caller.lines()
    assert last["summary"]["total"] == last["summary"]["accepted"] == len(results)
    assert [result["seq"] for result in results] == list(range(len(results)))
    assert len(results) <= caller.sent
    assert caller.answer.endswith(b"0\r\n\r\n"), "a whole answer, not a cut connection"
    dispatcher.up()
    row = arrived(simulated, parked)
    assert row["first_s"] >= due.timestamp()
    ids = accepted_in(results) | {parked}
    ledger = run(settled(dispatcher.store_url, PARTITIONS, ids))
    assert ledger.ended_twice() == []
    assert {id_: n for id_, n in accepted_times(simulated.journal()).items() if id_ in ids} == dict.fromkeys(ids, 1)


def test_a_second_signal_ends_it_at_once_and_nothing_is_lost(
    pair: Pair, route_of_its_own: str, mark: str, area: int
) -> None:
    dispatcher, simulated = pair
    simulated.patch(mark, hang=1.0)
    triggers = [notice(f"{mark}-{n}", phone(area, n), f"{mark} {n}", line=route_of_its_own) for n in range(100)]
    status, answers = dispatcher.call("POST", "/v1/triggers", triggers)
    ids = accepted_in(answers)
    assert (status, len(ids)) == (200, 100)
    until(lambda: len(simulated.journal(mark)) > 0, "messages to hang at the provider")
    process = dispatcher.process
    assert process is not None
    process.send_signal(signal.SIGTERM)
    until(lambda: dispatcher.words().endswith("draining"), "the drain to begin")
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) != 0
    assert time.monotonic() - began < 20
    simulated.create(mark)
    dispatcher.up()
    ledger = run(settled(dispatcher.store_url, PARTITIONS, ids))
    assert ledger.ended_twice() == []
    outcomes = {ledger.ends[id_][0][1] for id_ in ids}
    assert outcomes <= {"sent", "unknown"}, "unknown: what hung until the end of its sender"
    times = accepted_times(simulated.journal(mark))
    assert all(times[id_] == 1 for id_ in ids if ledger.ends[id_][0][1] == "sent")
