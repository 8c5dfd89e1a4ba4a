"""Messages out and receipts back, over a real socket."""

import asyncio
import random
import ssl
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import msgspec
import pytest

from channels import build
from channels.adapter import NotWritten
from channels.smpp.courier import SmppCourier
from channels.smpp.pdu import ENQUIRE_LINK, RESPONSE, UDHI, UNBIND, Pdu
from channels.smpp.status import ANSWERS, CODES, NAMES
from dispatcher.documents import Provider
from dispatcher.receipt import Receipt
from tests.channels.messages import message, messages
from tests.channels.smpp.centre import QUICK, Centre, centre, courier
from tests.support import run, until

DATA = Path(__file__).parent.parent / "data"
Scene = Callable[[Centre, SmppCourier], Coroutine[Any, Any, None]]


def play(scene: Scene, window: int = 10, **options: Any) -> None:
    """One centre, one courier; no task is left behind."""

    async def whole() -> None:
        async with centre() as one, courier(one, window, **options) as ours:
            await scene(one, ours)
        await until(lambda: len(asyncio.all_tasks()) == 1, "no task is left")

    run(whole())


def text(text: str, id_: str = "m1") -> Any:
    return message(id_, fields={"text": text})


def answers(receipts: list[Receipt]) -> list[str]:
    return [receipt.answer for receipt in receipts]


class Watched:
    """A watch that counts, or forbids."""

    def __init__(self, forbids: bool = False) -> None:
        self.begun = self.told = 0
        self._forbids = forbids

    def begin(self) -> None:
        if self._forbids:
            raise NotWritten("its share of the rate quota ran out")
        self.begun += 1

    def written(self) -> None:
        self.told += 1


class TestMessages:
    def test_a_batch_is_accepted_in_order(self) -> None:
        async def scene(one: Centre, ours: SmppCourier) -> None:
            watch = Watched()
            batch = messages(25)
            receipts = await ours.send(batch, 5, watch)
            assert [r.id for r in receipts] == [m.id for m in batch]
            assert answers(receipts) == ["accepted"] * 25
            assert [r.ref for r in receipts] == [f"id{n}" for n in range(1, 26)]
            assert [r.find for r in receipts] == [r.ref for r in receipts]
            assert {r.segments for r in receipts} == {1}
            assert (watch.begun, watch.told) == (1, 1)
            first = one.submitted[0]
            assert (first.to, first.to_ton, first.to_npi, first.registered) == ("8613800000000", 1, 1, 1)
            assert (first.source, first.source_ton, first.source_npi) == ("8610690000", 1, 1)
            assert (first.coding, first.text.decode("utf-16-be")) == (8, "[示例]尊敬的张三，已支付12.00元。")
            assert one.most_unanswered <= 10

        play(scene)

    def test_a_text_of_the_gsm_alphabet_is_one_octet_a_septet(self) -> None:
        async def scene(one: Centre, ours: SmppCourier) -> None:
            [receipt] = await ours.send([text("Pay 5€ @home")], 5)
            assert receipt.answer == "accepted"
            assert (one.submitted[0].coding, one.submitted[0].text) == (0, b"Pay 5\x1b\x65 \x00home")

        play(scene)

    def test_parts_of_a_message_share_one_receipt(self) -> None:
        async def scene(one: Centre, ours: SmppCourier) -> None:
            long = "a" * 152 + "€" + "b" * 150 + "€"  # neither pair may be cut
            [receipt] = await ours.send([text(long)], 5)
            assert (receipt.answer, receipt.segments, receipt.ref, receipt.find) == ("accepted", 3, "id3", "id3")
            assert {m.esm_class for m in one.submitted} == {UDHI}
            headers = [m.text[:6] for m in one.submitted]
            assert [h[:3] + h[4:] for h in headers] == [bytes((5, 0, 3, 3, n)) for n in (1, 2, 3)]
            assert len({h[3] for h in headers}) == 1
            assert [len(m.text) for m in one.submitted] == [6 + 152, 6 + 152, 6 + 2]
            one.submitted.clear()
            await ours.send([text("😀" * 40)], 5)
            assert [m.text[6:].decode("utf-16-be") for m in one.submitted] == ["😀" * 33, "😀" * 7]
            assert {m.coding for m in one.submitted} == {8}

        play(scene)

    @pytest.mark.parametrize(
        ("says", "answer", "code"),
        [
            ([0, 0x0B, 0], "invalid_recipient", "2 of 3 parts accepted; RINVDSTADR"),
            ([0, 0x58, 0x0B], "invalid_recipient", "1 of 3 parts accepted; RINVDSTADR"),
            ([0x58, 0, 0], "throttled", "2 of 3 parts accepted; RTHROTTLED"),
            ([0, 0, None], "unknown", "2 of 3 parts accepted; no_reply: no answer within 0.3 s"),
        ],
    )
    def test_partial_failure_is_told(self, says: list[int | None], answer: str, code: str) -> None:
        async def scene(one: Centre, ours: SmppCourier) -> None:
            replies = [None if status is None else (status, "x") for status in says]
            one.says = lambda n: replies[n - 1] if n <= 3 else (0, "later")
            receipts = await ours.send([text("a" * 400), text("short", "m2")], 0.3)
            assert (receipts[0].answer, receipts[0].code) == (answer, code)
            assert receipts[0].find is None

        play(scene)

    def test_every_status_has_its_answer(self) -> None:
        async def scene(one: Centre, ours: SmppCourier) -> None:
            told = {word: answer for answer, words in ANSWERS.items() for word in words.split()}
            assert set(told) == set(NAMES.values())
            known = [*(CODES[word] for word in told if word not in ("RINVBNDSTS", "RTHROTTLED", "RMSGQFUL")), 0x4FF]
            one.says = lambda n: (known[n - 1], "x")
            receipts = await ours.send(messages(len(known)), 5)
            assert answers(receipts) == [told.get(NAMES.get(status, ""), "rejected") for status in known]
            assert receipts[-1].code == "status 0x4ff"

        play(scene, window=200)

    def test_a_text_that_cannot_be_sent_harms_no_other(self) -> None:
        async def scene(one: Centre, ours: SmppCourier) -> None:
            batch = [message("m1", to="+" + "1" * 40), message("m2")]
            receipts = await ours.send(batch, 5)
            assert answers(receipts) == ["rejected", "accepted"]
            assert len(one.submitted) == 1

        play(scene)

    def test_a_watch_may_forbid(self) -> None:
        async def scene(one: Centre, ours: SmppCourier) -> None:
            receipts = await ours.send(messages(2), 5, Watched(forbids=True))
            assert answers(receipts) == ["transient"] * 2
            assert receipts[0].code == "not_written: its share of the rate quota ran out"
            assert answers(await ours.send(messages(10), 5)) == ["accepted"] * 10  # all places are free
            assert len(one.submitted) == 10

        play(scene)


class TestWindow:
    def test_no_more_than_the_window_is_unanswered(self) -> None:
        async def scene(one: Centre, ours: SmppCourier) -> None:
            one.holds = True
            sends = [asyncio.create_task(ours.send([text("x", f"m{n}")], 10)) for n in range(40)]
            await until(lambda: len(one.submitted) == 7, "the window is full")
            one.holds = False
            one.release()
            receipts = [r for batch in await asyncio.gather(*sends) for r in batch]
            assert answers(receipts) == ["accepted"] * 40
            assert one.most_unanswered == 7

        play(scene, window=7)

    def test_a_place_that_does_not_come_is_not_written(self) -> None:
        async def scene(one: Centre, ours: SmppCourier) -> None:
            one.says = lambda n: None
            receipts = await ours.send(messages(3), 0.1)
            assert answers(receipts) == ["unknown", "unknown", "transient"]
            assert receipts[2].code == "not_written: the window stayed full"
            one.says = lambda n: (0, f"id{n}")
            assert answers(await ours.send(messages(2), 5)) == ["accepted"] * 2

        play(scene, window=2)

    def test_throttling_halves_the_window_and_pauses(self) -> None:
        async def scene(one: Centre, ours: SmppCourier) -> None:
            one.says = lambda n: (0x58, "") if n <= 8 else (0, f"id{n}")
            receipts = await ours.send(messages(8), 5)
            assert answers(receipts) == ["throttled"] * 8
            assert {r.retry_after_s for r in receipts} == {1.0}
            begun_s = asyncio.get_running_loop().time()
            one.most_unanswered = 0
            one.holds = True
            sending = asyncio.create_task(ours.send(messages(8), 10))
            await until(lambda: len(one.submitted) == 12, "half a window is out")
            assert asyncio.get_running_loop().time() - begun_s > 0.5
            one.holds = False
            one.release()
            assert answers(await sending) == ["accepted"] * 8
            assert one.most_unanswered == 4

        play(scene, window=8)

    def test_congestion_slows_down(self) -> None:
        async def scene(one: Centre, ours: SmppCourier) -> None:
            one.suffix = bytes((0x04, 0x28, 0, 1, 95))
            await ours.send(messages(8), 5)
            assert ours._session is not None
            assert ours._session.window.limit == 1
            one.suffix = bytes((0x04, 0x28, 0, 1, 10))
            await ours.send(messages(40), 5)
            assert ours._session.window.limit > 4

        play(scene, window=8, version=0x50)

    def test_a_cancelled_call_leaves_nothing(self) -> None:
        async def scene(one: Centre, ours: SmppCourier) -> None:
            one.holds = True
            sends = [asyncio.create_task(ours.send([text("x", f"m{n}")], 10)) for n in range(9)]
            await until(lambda: len(one.submitted) == 3, "the window is full")
            for task in sends:
                task.cancel()
            await asyncio.wait(sends)
            assert ours._session is not None
            assert (ours._session.window.taken, repr(ours._session)) == (0, "Session(0 in flight)")
            one.holds = False
            assert answers(await ours.send(messages(6), 5)) == ["accepted"] * 6

        play(scene, window=3)


class TestSession:
    @pytest.mark.parametrize("version", [0x34, 0x50])
    def test_binds_as_told(self, version: int) -> None:
        async def scene(one: Centre, ours: SmppCourier) -> None:
            assert answers(await ours.send(messages(1), 5)) == ["accepted"]
            [bind] = one.binds
            assert (bind.system_id, bind.password, bind.system_type, bind.version) == ("esme", "hush", "sms", version)

        play(scene, version=version, system_type="sms")

    def test_unbinds_at_the_end(self) -> None:
        async def whole() -> None:
            async with centre() as one:
                async with courier(one) as ours:
                    await ours.send(messages(1), 5)
                assert [pdu.command for pdu in one.heard][-1] == UNBIND
                [after] = await ours.send(messages(1), 1)
                assert (after.answer, after.code) == ("transient", "not_written: the connection was closed")
                await ours.close()

        run(whole())

    @pytest.mark.parametrize(
        ("status", "answer"), [(0x0E, "auth"), (0x0F, "auth"), (0x05, "transient"), (0x58, "throttled")]
    )
    def test_a_refused_bind_is_the_answer(self, status: int, answer: str) -> None:
        async def scene(one: Centre, ours: SmppCourier) -> None:
            one.bind_status = status
            receipts = await ours.send(messages(2), 5)
            assert answers(receipts) == [answer] * 2
            assert NAMES[status] in (receipts[0].code or "")
            one.bind_status = 0
            await until(lambda: ours._session is not None, "it tried again")
            assert answers(await ours.send(messages(1), 5)) == ["accepted"]

        play(scene)

    def test_a_lost_connection_leaves_messages_unknown_and_is_bound_again(self) -> None:
        async def scene(one: Centre, ours: SmppCourier) -> None:
            one.says = lambda n: None
            sending = asyncio.create_task(ours.send(messages(4), 10))
            await until(lambda: len(one.submitted) == 2, "the window is full")
            one.cut()
            receipts = await sending
            assert answers(receipts) == ["unknown", "unknown", "transient", "transient"]
            assert (receipts[0].code or "").startswith("no_reply: the connection ended")
            one.says = lambda n: (0, f"id{n}")
            await until(lambda: len(one.binds) == 2 and ours._session is not None, "bound again")
            assert answers(await ours.send(messages(3), 5)) == ["accepted"] * 3

        play(scene, window=2)

    def test_a_centre_that_is_away_costs_no_waiting(self) -> None:
        async def whole() -> None:
            async with centre() as one:
                pass
            async with courier(one) as ours:
                for _ in range(2):
                    [receipt] = await ours.send(messages(1), 20)
                    assert receipt.answer == "transient"
                    assert (receipt.code or "").startswith("not_written: ")

        run(whole(), 15)

    def test_a_bound_session_is_asked_whether_it_is_there(self) -> None:
        async def scene(one: Centre, ours: SmppCourier) -> None:
            await ours.send(messages(1), 5)
            await until(lambda: sum(pdu.command == ENQUIRE_LINK for pdu in one.heard) >= 3, "it asks again and again")
            assert len(one.binds) == 1
            one.silent = True
            await until(lambda: len(one.binds) >= 2, "bound again")

        play(scene, timers=msgspec.structs.replace(QUICK, enquire_s=0.02, answer_s=0.2))

    def test_a_silent_centre_is_asked_at_once(self) -> None:
        async def scene(one: Centre, ours: SmppCourier) -> None:
            one.says, one.silent = lambda n: None, True
            [receipt] = await ours.send(messages(1), 0.3)
            assert receipt.answer == "unknown"
            await until(lambda: len(one.binds) >= 2, "bound again")

        play(scene, timers=msgspec.structs.replace(QUICK, answer_s=0.3))

    def test_the_centres_enquiry_is_answered(self) -> None:
        async def scene(one: Centre, ours: SmppCourier) -> None:
            await ours.send(messages(1), 5)
            assert await one.answered(one.ask(ENQUIRE_LINK), ENQUIRE_LINK) == 0
            assert await one.answered(one.ask(0x103), 0x103) == CODES["RINVCMDID"]  # data_sm

        play(scene)

    def test_the_centres_unbind_is_answered_after_what_is_in_flight(self) -> None:
        async def scene(one: Centre, ours: SmppCourier) -> None:
            one.holds = True
            sending = asyncio.create_task(ours.send(messages(2), 5))
            await until(lambda: len(one.submitted) == 2, "in flight")
            sequence = one.ask(UNBIND)
            one.holds = False
            one.release()
            assert answers(await sending) == ["accepted"] * 2
            assert await one.answered(sequence, UNBIND) == 0
            await until(lambda: len(one.binds) == 2, "bound again")

        play(scene, timers=msgspec.structs.replace(QUICK, unbind_s=5))

    def test_an_unknown_session_is_bound_again(self) -> None:
        async def scene(one: Centre, ours: SmppCourier) -> None:
            one.says = lambda n: (CODES["RINVBNDSTS"], "")
            assert answers(await ours.send(messages(1), 5)) == ["transient"]
            await until(lambda: len(one.binds) == 2, "bound again")

        play(scene)

    def test_garbage_ends_the_session(self) -> None:
        seed = random.randrange(1 << 32)
        print("seed", seed)
        chance = random.Random(seed)

        async def scene(one: Centre, ours: SmppCourier) -> None:
            for n in range(1, 6):
                await until(lambda n=n: len(one.binds) == n and ours._session is not None, "bound")  # type: ignore[misc]
                one.send(chance.randbytes(3_000) if n > 1 else b"HTTP/1.1 400 Bad Request\r\n\r\n")
                one.send(b"\xff" * 16)
                await until(lambda n=n: len(one.binds) > n, "bound again")  # type: ignore[misc]

        async def started(one: Centre, ours: SmppCourier) -> None:
            ours.listen(_nowhere)
            await scene(one, ours)

        play(started)

    def test_a_generic_nack_answers_its_message(self) -> None:
        async def scene(one: Centre, ours: SmppCourier) -> None:
            one.says = lambda n: None
            sending = asyncio.create_task(ours.send(messages(1), 5))
            await until(lambda: len(one.submitted) == 1, "in flight")
            one.send(Pdu(RESPONSE, CODES["RINVCMDLEN"], 2).encode())  # the bind was 1
            assert answers(await sending) == ["rejected"]

        play(scene)


async def _nowhere(items: Any) -> None:
    raise AssertionError(items)


def test_tls(tmp_path: Path) -> None:
    async def whole() -> None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(DATA / "server.pem")
        async with centre(context) as one:
            for ca_file, answer in ((DATA / "ca.pem", "accepted"), (DATA / "other.pem", "transient")):
                options = {
                    "host": "127.0.0.1", "port": one.port, "system_id": "esme", "password": "env:PASSWORD",
                    "tls": True, "ca_file": str(ca_file),
                }  # fmt: skip
                provider = msgspec.convert({"kind": "smpp", "channel": "sms", "options": options}, Provider)
                ours = build("p1", provider, {"PASSWORD": "hush"})
                assert isinstance(ours, SmppCourier)
                try:
                    [receipt] = await ours.send(messages(1), 5)
                    assert receipt.answer == answer, receipt
                finally:
                    await ours.close()

    run(whole())
