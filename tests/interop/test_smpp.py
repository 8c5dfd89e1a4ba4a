"""Two message centres of other makes: npm's smpp and PyPI's smpp34."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
import smpp34

from channels.smpp.courier import Account, SmppCourier
from channels.smpp.delivery import Outcome, outcome_of
from channels.smpp.pdu import MESSAGE_PAYLOAD, UDHI, Bind, Pdu, ShortMessage, decode_short_message
from channels.smpp.session import Session, Timers
from dispatcher.report import Report, Uplink
from tests.channels.messages import message
from tests.interop.conftest import HERE
from tests.servers import free_port
from tests.support import run, until

NUMBER = "+8613800001234"


class Kept:
    """An inbox that keeps all."""

    def __init__(self) -> None:
        self.items: list[Report | Uplink] = []

    async def __call__(self, items: Sequence[Report | Uplink]) -> None:
        self.items += items


@asynccontextmanager
async def bound(port: int, kept: Kept, password: str = "hush", version: int = 0x34) -> AsyncIterator[SmppCourier]:
    ours = SmppCourier("p1", Account("127.0.0.1", port, Bind("esme", password, "", version), "+8610690000", 10))
    ours.listen(kept)
    try:
        yield ours
    finally:
        await ours.close()


def text(id_: str, words: str, to: str = NUMBER) -> Any:
    return message(id_, to=to, fields={"text": words})


@asynccontextmanager
async def node() -> AsyncIterator[tuple[int, list[dict[str, Any]]]]:
    """Its port, and what it has taken."""
    process = await asyncio.create_subprocess_exec("node", str(HERE / "smsc.js"), stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    taken: list[dict[str, Any]] = []

    async def read(lines: asyncio.StreamReader) -> None:
        async for line in lines:
            taken.append(json.loads(line))

    port = int(await process.stdout.readline())
    reading = asyncio.create_task(read(process.stdout))
    try:
        yield port, taken
    finally:
        process.kill()
        await process.wait()
        await reading


def test_node_takes_messages_and_reports_them() -> None:
    async def whole() -> None:
        kept = Kept()
        async with node() as (port, taken), bound(port, kept) as ours:
            long = "长文😀" * 30
            nobody = NUMBER[:-2] + "00"
            batch = [text("m1", "Pay 5€ {now}"), text("m2", long), text("m3", "reply"), text("m4", "x", nobody)]
            receipts = await ours.send(batch, 10)
            assert [r.answer for r in receipts] == ["accepted", "accepted", "accepted", "invalid_recipient"]
            assert [r.segments for r in receipts[:3]] == [1, 2, 1]
            await until(lambda: len(taken) == 4, "node has them all")
            assert taken[0]["text"] == "Pay 5€ {now}"
            assert "".join(part["text"] for part in taken[1:3]) == long
            assert [part["udh"][:4] + part["udh"][6:] for part in taken] == ["", "00030201", "00030202", ""]
            await until(lambda: len(kept.items) == 4, "three reports and a text")
            # Answered in hexadecimal, reported in decimal.
            reports = {r.id: r.status for r in kept.items if isinstance(r, Report)}
            assert reports == {"m1": "delivered", "m2": "delivered", "m3": "delivered"}
            assert [u for u in kept.items if isinstance(u, Uplink)] == [Uplink("p1", "sms", NUMBER, "退订", "10690000")]
        async with node() as (port, _), bound(port, kept, "wrong") as ours:
            [receipt] = await ours.send([text("m1", "x")], 10)
            assert (receipt.answer, receipt.code) == ("auth", "bind: RINVPASWD")

    run(whole())


def test_node_speaks_smpp_5(caplog: pytest.LogCaptureFixture) -> None:
    """Every receipt comes as TLVs alone, in hexadecimal as its answer did."""

    async def whole() -> None:
        kept = Kept()
        async with node() as (port, taken), bound(port, kept, version=0x50) as ours:
            ends = ("01", "02", "03", "04")
            batch = [text(f"m{end}", "长文😀" * 30, NUMBER[:-2] + end) for end in ends]
            receipts = await ours.send(batch, 10)
            assert [(r.answer, r.segments) for r in receipts] == [("accepted", 2)] * 4
            assert ours._session is not None
            assert (ours._session.version, ours._session.window.limit) == ("5.0", 1)  # it says that it is congested
            await until(lambda: len(kept.items) == 6, "a report of each, and of the two first parts that are lost")
            reports = {r.id: (r.status, r.code, r.to) for r in kept.items if isinstance(r, Report)}
            assert reports == {
                "m01": ("delivered", "DELIVRD", batch[0].to),
                "m02": ("undelivered", "UNDELIV 017", batch[1].to),
                "m03": ("undelivered", "SKIPPED", batch[2].to),
                "m04": ("sent", "SCHEDULED 65534", batch[3].to),
            }
            assert {(t["receipt"], t["payload"], t["reference"]) for t in taken} == {(1, "", None)}

    with caplog.at_level("INFO", "channels.smpp.courier"):
        run(whole())
    assert "bound, the centre says SMPP 5.0" in caplog.text


def test_node_reads_our_message_payload() -> None:
    """Texts are sent in parts, so a payload is written here by the codec alone."""

    async def whole() -> None:
        told: asyncio.Queue[Pdu] = asyncio.Queue()
        tlvs = {MESSAGE_PAYLOAD: ("长文😀" * 100).encode("utf-16-be"), 0x0204: b"\x12\x34", 0x1401: b"theirs"}
        long = ShortMessage("10690000", NUMBER[1:], b"", 3, 0, 1, 1, 0, 1, 8, tlvs)
        async with node() as (port, taken):
            bind = Bind("esme", "hush", "", 0x50)
            session: Session[str] = await Session.open(
                "127.0.0.1", port, bind, 1, lambda _, pdu: told.put_nowait(pdu), lambda *_: None, Timers()
            )
            try:
                await session.window.take()
                answer = await session.submit(long.encode(), "m1").future
                assert answer.status == 0
                async with asyncio.timeout(10):
                    report = decode_short_message((await told.get()).body)
                assert outcome_of(report) == Outcome(answer.message_id, "delivered", "DELIVRD")
            finally:
                await session.unbind()
        assert [(t["text"], t["payload"], t["reference"]) for t in taken] == [("", "长文😀" * 100, 0x1234)]

    run(whole())


def test_smpp34_takes_messages_and_reports_them() -> None:
    async def whole() -> None:
        kept, port = Kept(), free_port()
        server = smpp34.Server("127.0.0.1", port, system_id="centre")
        await server.start()
        events: list[Any] = []
        esmes: list[Any] = []

        async def serve() -> None:
            while True:
                event = await server.next()
                if isinstance(event, smpp34.SubmitSmEvent):
                    events.append(event)
                    event.accept(f"{len(events):08X}")
                elif isinstance(event, smpp34.Esme):
                    esmes.append(event)

        serving = asyncio.create_task(serve())
        try:
            async with bound(port, kept) as ours:
                batch = [text("m1", "你好"), text("m2", "a" * 161)]
                receipts = [(await ours.send([one], 10))[0] for one in batch]  # it takes what is in flight in any order
                assert [(r.answer, r.segments) for r in receipts] == [("accepted", 1), ("accepted", 2)]
                assert (events[0].destination_addr, events[0].data_coding) == (NUMBER[1:], 8)
                assert bytes(events[0].short_message).decode("utf-16-be") == "你好"
                assert [event.esm_class for event in events] == [0, UDHI, UDHI]
                body = b"id:00000001 sub:001 dlvrd:001 stat:DELIVRD err:000 text:"
                user = {"source_addr": NUMBER[1:], "source_addr_ton": 1}
                told = await esmes[0].deliver_sm("10690000", body, esm_class=4, **user)
                assert told.is_success
                [report] = kept.items
                assert isinstance(report, Report)
                assert (report.find, report.status, report.to) == (receipts[0].find, "delivered", NUMBER)
        finally:
            serving.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await serving
            await server.stop()

    run(whole())


def test_smpp34_reads_what_we_encode() -> None:
    raw, tlvs = b"\x05\x00\x03\x07\x02\x01hi", {0x0424: b"payload", 0x1401: b"x"}
    ours = ShortMessage("10690000", "8613800001234", raw, 3, 0, 1, 1, UDHI, 1, 0, tlvs)
    theirs = smpp34.decode(Pdu(4, 0, 7, ours.encode()).encode())
    assert isinstance(theirs, smpp34.SubmitSm)
    assert (theirs.sequence_number, theirs.source_addr, theirs.destination_addr) == (7, ours.source, ours.to)
    assert (theirs.esm_class, theirs.registered_delivery, bytes(theirs.short_message)) == (UDHI, 1, ours.text)
    assert {tlv.tag: bytes(tlv.value) for tlv in theirs.tlvs} == ours.tlvs
    assert bytes(theirs.encode())[16:] == ours.encode()
