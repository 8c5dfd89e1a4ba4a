"""The pacer is pure and exact, the generator sends what it says, and latencies are from the intended send."""

import asyncio
import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.load import LoadError, load
from bench.plan import BURST, MIXES, TEMPLATES, Lines, Plan, pace
from bench.spread import latencies, spread
from dispatcher.documents import Template
from dispatcher.ident import message_id, time_prefix, trigger_key
from dispatcher.template import check_template
from dispatcher.trigger import trigger_decoder
from tests.client.peer import Step, raw_server, serving
from tests.support import run


@given(st.floats(1, 1e6), st.floats(0.01, 100), st.lists(st.floats(0, 1), max_size=50))
def test_the_pacer_sends_each_trigger_when_due_and_none_before(rate: float, seconds: float, steps: list[float]) -> None:
    plan = Plan(rate=rate, seconds=seconds)
    total = plan.total
    assert total is not None
    elapsed_s, sent = 0.0, 0
    for step in steps:
        elapsed_s += step
        now = pace(plan, elapsed_s, sent)
        assert now == pace(plan, elapsed_s, sent)
        assert 0 <= now.due <= total - sent
        sent += now.due
        assert now.over == (sent - now.due >= total)
        assert sent == total or plan.intended_s(sent) > elapsed_s - 1e-6
        assert sent == 0 or plan.intended_s(sent - 1) <= elapsed_s + 1e-6
    assert pace(plan, elapsed_s, total).over


def test_the_pacer_before_the_start_and_without_a_rate() -> None:
    early = pace(Plan(rate=100, seconds=1), -0.05, 0)
    assert (early.due, early.over) == (0, False)
    assert early.wait_s == pytest.approx(0.05)
    free = Plan(rate=0, seconds=2)
    assert (pace(free, 1.9, 10**9).due, pace(free, 1.9, 0).over, pace(free, 2.0, 0).over) == (BURST, False, True)


@pytest.mark.parametrize("mix", sorted(MIXES))
def test_lines_are_triggers(mix: str) -> None:
    plan = Plan(users=50, mix=mix)
    chunk = Lines(plan).chunk(95, 205)
    size, _, rest = chunk.partition(b"\r\n")
    assert rest.endswith(b"\n\r\n")
    assert int(size, 16) == len(rest) - 2
    triggers = trigger_decoder.decode_lines(rest[:-2])
    people = plan.people()
    assert [t.id for t in triggers] == [f"b-7-{n}" for n in range(95, 205)]
    assert [t.user for t in triggers] == [f"u{people[n % 50]}" for n in range(95, 205)]
    assert {t.template for t in triggers} <= set(MIXES[mix])
    assert Lines(plan).chunk(95, 205) == chunk
    assert Lines(Plan(users=50, mix=mix, seed=8)).chunk(95, 205) != chunk


def test_the_templates_of_the_mixes_are_sound() -> None:
    assert {name for mix in MIXES.values() for name in mix} == set(TEMPLATES)
    for document in TEMPLATES.values():
        assert check_template(msgspec.convert(document, Template)) == []


@pytest.mark.parametrize(("rate", "results"), [(2000.0, "none"), (2000.0, "all"), (0.0, "none")])
def test_a_run_sends_its_plan_and_counts(rate: float, results: str) -> None:
    async def scene() -> None:
        async with serving() as fake:
            plan = Plan(rate=rate, seconds=0.3, users=100)
            report = await load(fake.url, plan, connections=2, results=results)
            assert report.sent == (plan.total or report.sent) > 0
            assert report.summary["total"] == report.summary["accepted"] == report.sent
            numbers = sorted(int(line["id"].split("-")[2]) for request in fake.requests for line in request)
            assert numbers == list(range(report.sent))
            assert (report.answers is not None) == (results == "all")
            if report.answers is not None:
                assert report.answers.count == math.ceil(report.sent / 16)
                assert 0 < report.answers.p50_ms <= report.answers.p99_ms <= report.answers.max_ms
            if rate:
                assert 0.05 <= report.sending_s <= 3.0  # planned: 0.3

    run(scene())


def test_a_refusal_and_a_cut_are_said() -> None:
    async def scene() -> None:
        plan = Plan(rate=1000, seconds=0.2)
        async with serving(*(Step(status=401, document={"title": "Unauthorized"}) for _ in range(2))) as fake:
            with pytest.raises(LoadError, match="401 Unauthorized"):
                await load(fake.url, plan)
        async with serving(Step(read=5), Step(read=5)) as fake:
            with pytest.raises(LoadError, match="the server left"):
                await load(fake.url, plan)

    run(scene())


def test_a_server_that_does_not_read_makes_it_late_but_not_large() -> None:
    async def scene() -> None:
        gate = asyncio.Event()

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await gate.wait()
            while b"0\r\n\r\n" not in await reader.read(1 << 20):
                pass
            body = b'{"summary":{"total":1}}\n'
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            writer.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
            await writer.drain()

        async with raw_server(talk) as url:
            asyncio.get_running_loop().call_later(0.8, gate.set)
            report = await load(url, Plan(rate=1e6, seconds=0.3, users=100), connections=1)
            assert report.sent == 300_000
            assert report.late_max_ms > 100

    run(scene())


def test_latencies_are_from_the_intended_send_to_the_first_reception() -> None:
    plan = Plan(rate=1000.0, seconds=1, users=30)
    people = plan.people()
    start_epoch_s = 1_800_000_000.0
    journal = []
    for n in range(100):
        salt = trigger_key("default", f"b-7-{n}", f"u{people[n % 30]}")[1]
        message = message_id(time_prefix(1), salt, 3, "sms")
        at_s = start_epoch_s + n / 1000 + (n + 1) / 1000
        journal.append({"id": message, "first_s": at_s + 5.0})
        journal.append({"id": message, "first_s": at_s})
    journal.append({"id": "somebody else's", "first_s": 0.0})
    result = latencies(journal, plan, start_epoch_s, sent=1000)
    assert result.count == 100
    assert result.p50_ms == pytest.approx(50, abs=0.01)
    assert result.p99_ms == pytest.approx(99, abs=0.01)
    assert result.max_ms == pytest.approx(100, abs=0.01)
    assert math.isnan(spread([]).p50_ms)
