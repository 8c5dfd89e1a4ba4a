"""Receipts and users' texts in, acknowledged once they are kept."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from channels.smpp.courier import SmppCourier
from channels.smpp.delivery import Outcome, Part, outcome_of, part_of
from channels.smpp.ids import Ids, normal
from channels.smpp.joins import Joins
from channels.smpp.pdu import DELIVER_SM, MESSAGE_PAYLOAD, UDHI, ShortMessage
from channels.smpp.status import CODES
from dispatcher.report import Report, Uplink
from tests.channels.messages import message
from tests.channels.smpp.centre import Centre, centre, courier, text_message
from tests.support import run, until

RECEIPT = "id:{} sub:001 dlvrd:001 submit date:2611240101 done date:2611240102 stat:{} err:{} text:id:9 stat:UNDELIV"


class Kept:
    """An inbox; while `full` it keeps nothing, and while `shut` it does not answer."""

    def __init__(self) -> None:
        self.items: list[Report | Uplink] = []
        self.full = False
        self.open = asyncio.Event()
        self.open.set()

    async def __call__(self, items: Sequence[Report | Uplink]) -> None:
        await self.open.wait()
        if self.full:
            raise OSError("the store is away")
        self.items += items


Scene = Callable[[Centre, SmppCourier, Kept], Coroutine[Any, Any, None]]


def play(scene: Scene) -> None:
    async def whole() -> None:
        async with centre() as one, courier(one) as ours:
            kept = Kept()
            ours.listen(kept)
            await until(lambda: one.sessions == 1 and ours._session is not None, "bound")
            await scene(one, ours, kept)
        await until(lambda: len(asyncio.all_tasks()) == 1, "no task is left")

    run(whole())


def receipt(id_: str, stat: str = "DELIVRD", err: str = "000", **changes: Any) -> ShortMessage:
    return text_message(RECEIPT.format(id_, stat, err).encode(), esm_class=4, **changes)


class TestReceipts:
    @pytest.mark.parametrize(
        ("stat", "status", "err", "code"),
        [
            ("DELIVRD", "delivered", "000", "DELIVRD"),
            ("UNDELIV", "undelivered", "012", "UNDELIV 012"),
            ("EXPIRED", "undelivered", "000", "EXPIRED"),
            ("deleted", "undelivered", "0", "DELETED"),
            ("REJECTD", "undelivered", "X1", "REJECTD X1"),
            ("ACCEPTD", "sent", "000", "ACCEPTD"),
            ("ENROUTE", "sent", "000", "ENROUTE"),
            ("UNKNOWN", "sent", "000", "UNKNOWN"),
        ],
    )
    def test_the_text_form(self, stat: str, status: str, err: str, code: str) -> None:
        assert outcome_of(receipt("A1", stat, err)) == Outcome("A1", status, code)  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        "text", ["stat:DELIVRD id:77", "STAT:DELIVRD text: ID:77", "id:77 stat:delivrd", "Id : 77  Stat : DELIVRD"]
    )
    def test_keys_in_any_order_and_case(self, text: str) -> None:
        found = outcome_of(text_message(text.encode(), esm_class=4))
        assert found is not None
        assert (found.id, found.status) == ("77", "delivered")

    def test_tlvs_come_before_the_text(self) -> None:
        tlvs = {0x1E: b"tlv1\0", 0x0427: b"\x05", 0x0423: b"\x03\x00\x0b"}
        assert outcome_of(receipt("text1", tlvs=tlvs)) == Outcome("tlv1", "undelivered", "UNDELIV 011")
        alone = text_message(b"", tlvs={0x1E: b"tlv1\0", 0x0427: b"\x02"})
        assert outcome_of(alone) == Outcome("tlv1", "delivered", "DELIVRD")

    def test_what_names_no_message_is_acknowledged_and_dropped(self) -> None:
        async def scene(one: Centre, ours: SmppCourier, kept: Kept) -> None:
            assert await one.answered(one.deliver(text_message(b"hello", esm_class=4))) == 0
            assert kept.items == []

        play(scene)

    def test_a_receipt_is_acknowledged_once_it_is_kept(self) -> None:
        async def scene(one: Centre, ours: SmppCourier, kept: Kept) -> None:
            kept.open.clear()
            sequence = one.deliver(receipt("A1"))
            assert await one.answered(one.ask(0x15), 0x15) == 0  # the session goes on
            assert all(pdu.sequence != sequence for pdu in one.heard if pdu.command & 0xFF == DELIVER_SM)
            kept.open.set()
            assert await one.answered(sequence) == 0
            assert kept.items == [Report("p1", "delivered", None, "a1", "+8613800000000", "DELIVRD")]

        play(scene)

    def test_what_could_not_be_kept_is_to_be_sent_again(self) -> None:
        async def scene(one: Centre, ours: SmppCourier, kept: Kept) -> None:
            kept.full = True
            assert await one.answered(one.deliver(receipt("A1"))) == CODES["RX_T_APPN"]
            kept.full = False
            assert await one.answered(one.deliver(receipt("A1"))) == 0
            assert len(kept.items) == 1

        play(scene)

    @pytest.mark.parametrize("source", ["", "1" * 65])
    def test_a_text_of_nobody_never_comes_again(self, source: str) -> None:
        async def scene(one: Centre, ours: SmppCourier, kept: Kept) -> None:
            told = text_message(b"hello", source="8613800000000")
            body = told.encode().replace(told.source.encode(), source.encode())
            assert await one.answered(one.ask(DELIVER_SM, body)) == CODES["RX_P_APPN"]
            assert kept.items == []

        play(scene)

    def test_what_cannot_be_read_never_comes_again(self) -> None:
        async def scene(one: Centre, ours: SmppCourier, kept: Kept) -> None:
            assert await one.answered(one.ask(DELIVER_SM, b"\0\1")) == CODES["RX_P_APPN"]

        play(scene)

    def test_nobody_listens(self) -> None:
        async def whole() -> None:
            async with centre() as one, courier(one) as ours:
                await ours.send([message()], 5)
                assert await one.answered(one.deliver(receipt("A1"))) == CODES["RX_T_APPN"]

        run(whole())

    def test_many_at_once(self) -> None:
        async def scene(one: Centre, ours: SmppCourier, kept: Kept) -> None:
            last = [one.deliver(receipt(f"{n:x}")) for n in range(1, 901)][-1]
            assert await one.answered(last) == 0
            assert [item.find for item in kept.items if isinstance(item, Report)] == [f"{n:x}" for n in range(1, 901)]

        play(scene)


class TestMatching:
    @pytest.mark.parametrize(
        ("answered", "reported"),
        [("1A2B3C", "1A2B3C"), ("1a2b3c", "0001A2B3C"), ("1A2B3C", "1715004"), ("1715004", "1A2B3C")],
    )
    def test_either_radix(self, answered: str, reported: str) -> None:
        async def scene(one: Centre, ours: SmppCourier, kept: Kept) -> None:
            one.says = lambda n: (0, answered)
            [sent] = await ours.send([message("m1")], 5)
            assert await one.answered(one.deliver(receipt(reported))) == 0
            assert kept.items == [Report("p1", "delivered", "m1", sent.find, "+8613800000000", "DELIVRD")]

        play(scene)

    def test_the_radix_is_learnt_from_a_message_to_the_same_number(self) -> None:
        ids = Ids()
        ids.remember("4660", "m1", "+8613800000000")
        assert ids.find("1234", ["8613900001111"]) == ("1234", None)  # 0x1234 is 4660, but not of this number
        assert ids.form is None
        found, sent = ids.find("1234", ["10690", "13800000000"])
        assert (found, sent and sent.message, ids.form) == ("4660", "m1", "hexadecimal")
        assert ids.find("ff", ["8613900001111"]) == ("255", None)  # what others sent is found by the store

    def test_an_id_that_reads_the_same_teaches_nothing(self) -> None:
        ids = Ids()
        ids.remember("7", "m1", "+8613800000000")
        assert ids.find("7", ["8613800000000"])[0] == "7"
        assert ids.form is None

    def test_memory_is_bounded(self) -> None:
        ids = Ids(most=10)
        for n in range(100):
            ids.remember(f"{n}", f"m{n}", "+8613800000000")
        assert len(ids) == 10
        assert ids.find("99", ["8613800000000"])[1] is not None

    @given(st.text(max_size=80), st.text(max_size=20))
    def test_any_id_is_looked_for(self, id_: str, number: str) -> None:
        ids = Ids()
        ids.remember(id_, "m1", number)
        for form in (None, "same", "decimal", "hexadecimal"):
            ids.form = form  # type: ignore[assignment]
            assert len(ids.find(id_, [number])[0]) <= 100
        assert normal(normal(id_)) == normal(id_)

    def test_a_message_of_parts_has_its_last_parts_report(self) -> None:
        async def scene(one: Centre, ours: SmppCourier, kept: Kept) -> None:
            [sent] = await ours.send([message("m1", fields={"text": "a" * 400})], 5)
            assert sent.find == "id3"
            assert await one.answered(one.deliver(receipt("id1"))) == 0
            assert kept.items == []
            assert await one.answered(one.deliver(receipt("id3"))) == 0
            assert await one.answered(one.deliver(receipt("id2", "UNDELIV"))) == 0
            assert [(r.status, r.id) for r in kept.items if isinstance(r, Report)] == [
                ("delivered", "m1"),
                ("undelivered", "m1"),
            ]

        play(scene)

    def test_a_late_answer_makes_the_report_found(self) -> None:
        async def scene(one: Centre, ours: SmppCourier, kept: Kept) -> None:
            one.holds = True
            [sent] = await ours.send([message("m1")], 0.1)
            assert sent.answer == "unknown"
            one.release()
            await until(lambda: len(ours._ids) == 1, "the late answer is in")
            assert await one.answered(one.deliver(receipt("id1"))) == 0
            [report] = kept.items
            assert report.id == "m1"  # type: ignore[union-attr]

        play(scene)


def udh(reference: int, total: int, place: int, text: bytes, wide: bool = False) -> dict[str, Any]:
    header = bytes((6, 8, 4, reference >> 8, reference & 255)) if wide else bytes((5, 0, 3, reference))
    return {"text": header + bytes((total, place)) + text, "esm_class": UDHI}


class TestTexts:
    def test_a_text_is_handed_over(self) -> None:
        async def scene(one: Centre, ours: SmppCourier, kept: Kept) -> None:
            assert await one.answered(one.deliver(text_message("退订".encode("utf-16-be"), coding=8))) == 0
            assert await one.answered(one.deliver(text_message(b"", tlvs={MESSAGE_PAYLOAD: b"STOP"}))) == 0
            assert kept.items == [
                Uplink("p1", "sms", "+8613800000000", "退订", "10690000"),
                Uplink("p1", "sms", "+8613800000000", "STOP", "10690000"),
            ]

        play(scene)

    @pytest.mark.parametrize("wide", [False, True])
    def test_parts_are_put_together_in_any_order(self, wide: bool) -> None:
        async def scene(one: Centre, ours: SmppCourier, kept: Kept) -> None:
            raw = "长😀文".encode("utf-16-be")
            for place, piece in ((3, raw[6:]), (1, raw[:4]), (1, raw[:4]), (2, raw[4:6])):  # cut within the pair
                assert kept.items == []
                part = udh(300 if wide else 30, 3, place, piece, wide)
                assert await one.answered(one.deliver(text_message(**part, coding=8))) == 0
            assert kept.items == [Uplink("p1", "sms", "+8613800000000", "长😀文", "10690000")]
            assert len(ours._mail._joins) == 0

        play(scene)

    def test_sar_parts(self) -> None:
        tlvs = {0x020C: b"\x01\x02", 0x020E: b"\x02", 0x020F: b"\x01"}
        assert part_of(text_message(b"x", tlvs=tlvs)) == Part(0, b"x", 0x2_0102, 2, 1)

    def test_a_last_part_that_could_not_be_kept_completes_the_text_again(self) -> None:
        async def scene(one: Centre, ours: SmppCourier, kept: Kept) -> None:
            assert await one.answered(one.deliver(text_message(**udh(1, 2, 1, b"un")))) == 0
            kept.full = True
            assert await one.answered(one.deliver(text_message(**udh(1, 2, 2, b"subscribe")))) == CODES["RX_T_APPN"]
            kept.full = False
            assert await one.answered(one.deliver(text_message(**udh(1, 2, 2, b"subscribe")))) == 0
            assert [item.text for item in kept.items if isinstance(item, Uplink)] == ["unsubscribe"]

        play(scene)

    def test_unfinished_texts_are_bounded_and_handed_over_as_they_are(self) -> None:
        joins = Joins(most=2, keep_s=10)
        for n, now_s in ((1, 0.0), (2, 1.0), (3, 2.0)):
            whole, given_up = joins.put((f"s{n}", "t"), Part(0, b"part", n, 2, 1), now_s)
            assert whole is None
            assert given_up == ([(("s1", "t"), "part")] if n == 3 else [])
        assert joins.expire(10.0) == []
        assert joins.expire(11.5) == [(("s2", "t"), "part")]
        assert len(joins) == 1

    def test_what_was_given_up_reaches_the_inbox(self) -> None:
        async def scene(one: Centre, ours: SmppCourier, kept: Kept) -> None:
            ours._mail._joins = Joins(most=1)
            assert await one.answered(one.deliver(text_message(**udh(1, 2, 1, b"half")))) == 0
            assert await one.answered(one.deliver(text_message(**udh(2, 2, 1, b"another")))) == 0
            await until(lambda: len(kept.items) == 1, "the first is handed over")
            assert [item.text for item in kept.items if isinstance(item, Uplink)] == ["half"]

        play(scene)
