"""What Apple is sent, what its answers mean, and how its connections are used."""

import asyncio
import base64
import json
import random
import ssl
import uuid
from collections import Counter
from typing import Any

import aioapns
import jwt
import pytest
from aioapns.connection import APNsProductionClientProtocol
from hypothesis import given
from hypothesis import strategies as st

from channels import build
from channels.answers import Verdict
from channels.apns.frames import Frames, Goaway, NoFrame
from channels.apns.session import MOST_STREAMS, Place, Session
from channels.apns.signer import LAG_S, LIFE_S, RENEWAL_S, Signer
from channels.apns.wire import REASONS, push, receipt
from channels.options import OptionsError
from dispatcher.documents import Provider
from dispatcher.kinds import BULK
from tests.channels.apns.apple import DATA, TOKEN, Asked, Says, apple, courier
from tests.channels.messages import message, reply
from tests.channels.p8 import KEY, P8
from tests.channels.test_couriers import Watched, words
from tests.support import run, until

NOW_S = 1_800_000_000.0


def note(id_: str = "m1", **changes: Any) -> Any:
    return message(id_, "push", **{"to": TOKEN, "expires_ms": int(NOW_S * 1000) + 600_000, **changes})


def notes(count: int) -> list[Any]:
    return [note(f"m{n}") for n in range(count)]


class TestWire:
    def test_the_same_as_another_client_sends(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """aioapns is the oracle: it sends to our stub what it would send to Apple, and we send the same."""

        async def scene() -> None:
            async with apple(tls=True) as one, courier(one.port, tls=True) as ours:
                monkeypatch.setattr(APNsProductionClientProtocol, "APNS_SERVER", "localhost")
                monkeypatch.setattr(APNsProductionClientProtocol, "APNS_PORT", one.port)
                sent = note("m1")
                [told] = await ours.send([sent], 10)
                mine = one.asked[0]
                wanted = mine.headers
                client = aioapns.APNs(
                    key=P8, key_id="ABC123DEFG", team_id="DEF123GHIJ", topic="com.example.app",
                    ssl_context=ssl.create_default_context(cafile=str(DATA / "ca.pem")), max_connections=1,
                )  # fmt: skip
                request = aioapns.NotificationRequest(
                    TOKEN, mine.json, notification_id=wanted["apns-id"], time_to_live=0, priority=10,
                    collapse_key="m1", push_type=aioapns.PushType.ALERT,
                )  # fmt: skip
                result = await client.send_notification(request)
                assert result.is_successful
                assert told.ref == result.notification_id
                theirs = one.asked[1]
                assert theirs.json == mine.json
                apart = {"authorization", "apns-expiration", "host", ":authority"}
                assert {k: v for k, v in wanted.items() if k not in apart} == {
                    k: v for k, v in theirs.headers.items() if k not in apart
                }
                assert wanted.keys() - apart | {"host"} == theirs.headers.keys() - {"authorization", "apns-expiration"}
                assert (wanted[":authority"], wanted["apns-expiration"].isdigit()) == (f"localhost:{one.port}", True)
                for asked in (mine, theirs):
                    scheme, _, token = asked.headers["authorization"].partition(" ")
                    assert scheme == "bearer"
                    assert jwt.get_unverified_header(token)["kid"] == "ABC123DEFG"
                    claims = jwt.decode(token, KEY.public_key(), ["ES256"], options={"verify_iat": False})
                    assert claims.keys() == {"iss", "iat"}
                    assert claims["iss"] == "DEF123GHIJ"
                one.says = lambda n, asked: (410, "Unregistered")
                [dead] = await ours.send([note("m2")], 10)
                refused = await client.send_notification(aioapns.NotificationRequest(TOKEN, {"aps": {}}))
                assert (refused.status, dead.answer, dead.code) == ("410", "invalid_recipient", refused.description)
                for connection in client.pool.connections:
                    connection.close()

        run(scene())

    def test_what_is_sent(self) -> None:
        made = push(note(lane=BULK), "api.push.apple.com", "https", "com.example.app", NOW_S)
        assert not isinstance(made, Verdict)
        headers = {name.decode(): value.decode() for name, value in made.headers}
        assert uuid.UUID(headers.pop("apns-id")).version == 5
        assert headers == {
            ":method": "POST",
            ":scheme": "https",
            ":authority": "api.push.apple.com",
            ":path": f"/3/device/{TOKEN}",
            "apns-collapse-id": "m1",
            "apns-expiration": str(int(NOW_S) + 600),
            "apns-topic": "com.example.app",
            "apns-push-type": "alert",
            "apns-priority": "5",
        }
        assert json.loads(made.body) == {
            "aps": {"alert": {"title": "Paid", "body": "12.00"}},
            "message": "m1",
            "jump_kind": "h5",
            "jump_url": "https://example.com",
        }

    @pytest.mark.parametrize("to", ["", "xyz", "a1" * 101, TOKEN + "/..", TOKEN[:-1], "a1" * 7, TOKEN + "\n"])
    def test_what_is_no_token_is_not_sent(self, to: str) -> None:
        assert push(note(to=to), "a", "https", "t", NOW_S) == Verdict("invalid_recipient", "BadDeviceToken")

    def test_what_is_too_long_is_not_sent(self) -> None:
        fields = {"title": "x", "body": "语" * 1_400}
        assert push(note(fields=fields), "a", "https", "t", NOW_S) == Verdict("rejected", "PayloadTooLarge")

    @pytest.mark.parametrize(
        ("status", "reason", "answer"),
        [
            (200, "", "accepted"),
            (410, "Unregistered", "invalid_recipient"),
            (410, "ExpiredToken", "invalid_recipient"),
            (400, "BadDeviceToken", "invalid_recipient"),
            (400, "DeviceTokenNotForTopic", "invalid_recipient"),
            (429, "TooManyRequests", "throttled"),
            (429, "TooManyProviderTokenUpdates", "throttled"),
            (403, "InvalidProviderToken", "auth"),
            (400, "TopicDisallowed", "auth"),
            (400, "BadTopic", "rejected"),
            (413, "PayloadTooLarge", "rejected"),
            (400, "IdleTimeout", "transient"),
            (503, "Shutdown", "transient"),
            (400, "NewlyInvented", "rejected"),
            (403, "NewlyInvented", "auth"),
            (500, "", "transient"),
            (504, "", "unknown"),
            (204, "", "unknown"),
            (0, "", "unknown"),
        ],
    )
    def test_answers(self, status: int, reason: str, answer: str) -> None:
        found = receipt(note(), reply(status, json.dumps({"reason": reason}).encode() if reason else b""), "p1", NOW_S)
        assert (found.id, found.provider, found.answer) == ("m1", "p1", answer)
        assert found.narrow == (reason == "TooManyRequests")

    def test_every_reason_of_the_page_is_known(self) -> None:
        assert len(REASONS) == 5 + 2 + 9 + 12 + 4

    @given(st.integers(0, 999), st.binary(max_size=60) | st.just(b"[" * 10_000))
    def test_odd_answers(self, status: int, body: bytes) -> None:
        assert receipt(note(), reply(status, body), "p1", NOW_S).id == "m1"


class TestSigner:
    def test_all_senders_use_one_token_for_forty_minutes(self) -> None:
        seed = random.randrange(2**32)
        print("seed", seed)
        chance = random.Random(seed)
        tokens: Counter[bytes] = Counter()
        for _ in range(200):
            at_s = NOW_S + chance.uniform(0, 4 * LIFE_S)
            token = Signer(KEY, "K", "T").token(at_s)
            tokens[token] += 1
            body = token.split(b".")[1]
            issued_s = json.loads(base64.urlsafe_b64decode(body + b"=" * (-len(body) % 4)))["iat"]
            assert LAG_S <= at_s - issued_s <= LAG_S + LIFE_S + 1 < 3_600
        assert len(tokens) == 5

    def test_an_expired_token_is_replaced_once_in_twenty_minutes(self) -> None:
        signer = Signer(KEY, "K", "T")
        first = signer.token(NOW_S)
        assert signer.renew(first, NOW_S + 1)
        second = signer.token(NOW_S + 2)
        assert second != first
        assert signer.renew(first, NOW_S + 3)  # another message had the first one still
        assert signer.token(NOW_S + 4) == second
        assert not signer.renew(second, NOW_S + 5)
        assert signer.renew(second, NOW_S + 1 + RENEWAL_S)


class TestConnection:
    def test_one_stream_until_the_first_is_taken_then_many_on_one_connection(self) -> None:
        async def scene() -> None:
            async with apple(limit=50) as one, courier(one.port) as ours:
                one.holds = True
                sending = asyncio.create_task(ours.send(notes(51), 10))
                await until(lambda: len(one.held) == 1, "the first is there")
                assert one.most_open == 1
                one.release()
                await until(lambda: len(one.held) == 50, "as many as are allowed are there")
                one.holds = False
                one.release()
                assert words(await sending) == {("accepted", "")}
                assert (one.most_open, one.connections) == (50, 1)

        run(scene())

    def test_a_second_connection_when_the_first_is_full(self) -> None:
        async def scene() -> None:
            async with apple(limit=10) as one, courier(one.port) as ours:
                await ours.send(notes(1), 10)
                one.holds = True
                sending = asyncio.create_task(ours.send(notes(25), 10))
                await until(lambda: one.connections == 2 and len(one.held) == 11, "both are in use")
                one.holds = False
                one.release()
                assert words(await sending) == {("accepted", "")}
                assert one.most_open <= 10

        run(scene())

    def test_waiting_for_a_stream_in_vain_is_not_written(self) -> None:
        async def scene() -> None:
            async with apple() as one, courier(one.port) as ours:
                one.says = lambda n, asked: None
                watch = Watched()
                receipts = await ours.send(notes(3), 1, watch)
                assert [(r.answer, r.code) for r in receipts] == [
                    ("unknown", "no_reply: no reply within 1 s"),
                    ("transient", "not_written: no stream was free in time"),
                    ("transient", "not_written: no stream was free in time"),
                ]
                assert watch.begun == 1
                await until(lambda: one.cancelled == 1, "it was cancelled")

        run(scene())

    def test_goaway_drains_and_the_next_connects_anew(self) -> None:
        async def scene() -> None:
            async with apple(careful=False) as one, courier(one.port) as ours:
                one.holds = True
                sending = asyncio.create_task(ours.send(notes(6), 10))
                await until(lambda: len(one.held) == 6, "all are there")
                peer = one.peers[0]
                peer.goaway(one.held[3].stream)
                later = asyncio.create_task(ours.send([note("later")], 10))
                await until(lambda: one.connections == 2 and len(one.held) == 7, "a new connection is used")
                one.holds = False
                one.release()
                receipts = await sending
                assert [receipt.answer for receipt in receipts] == ["accepted"] * 4 + ["transient"] * 2
                assert {receipt.code for receipt in receipts[4:]} == {
                    "not_written: the server goes away: error 0, Shutdown"
                }
                assert words(await later) == {("accepted", "")}
                await until(lambda: len(one.peers) == 1, "the first connection is over")

        run(scene())

    def test_a_refused_stream_is_not_written(self) -> None:
        async def scene() -> None:
            async with apple(careful=False) as one, courier(one.port) as ours:

                def says(n: int, asked: Asked) -> Says:
                    if n == 2:
                        asked.peer.h2.reset_stream(asked.stream, 7)
                    if n == 3:
                        asked.peer.h2.reset_stream(asked.stream, 2)
                    return None if n in (2, 3) else (200, "")

                one.says = says
                receipts = await ours.send(notes(4), 10)
                assert [receipt.answer for receipt in receipts] == ["accepted", "transient", "unknown", "accepted"]
                assert receipts[1].code == "not_written: the server refused the stream"

        run(scene())

    def test_an_expired_token_is_signed_anew_and_the_message_repeated_once(self) -> None:
        async def scene() -> None:
            async with apple(careful=False) as one, courier(one.port) as ours:
                first: list[str] = []

                def says(n: int, asked: Asked) -> Says:
                    first.append(asked.headers["authorization"])
                    return (403, "ExpiredProviderToken") if asked.headers["authorization"] == first[0] else (200, "")

                one.says = says
                watch = Watched()
                assert words(await ours.send(notes(3), 10, watch)) == {("accepted", "")}
                assert (len(one.asked), watch.begun) == (6, 2)
                one.says = lambda n, asked: (403, "ExpiredProviderToken")
                assert words(await ours.send(notes(3), 10)) == {("auth", "ExpiredProviderToken")}
                assert len(one.asked) == 9

        run(scene())

    def test_a_silent_server_is_asked_whether_it_is_there_and_left(self) -> None:
        async def scene() -> None:
            async with apple(careful=False) as one, courier(one.port) as ours:
                assert words(await ours.send(notes(1), 10)) == {("accepted", "")}
                one.peers[0].transport.pause_reading()
                assert words(await ours.send(notes(1), 1)) == {("unknown", "no_reply")}

                async def mended() -> bool:
                    return words(await ours.send(notes(1), 1)) == {("accepted", "")}

                await until(mended, "another connection is used")
                assert one.connections == 2

        run(scene())

    def test_bodies_beyond_the_connections_window(self) -> None:
        async def scene() -> None:
            async with apple(careful=False) as one, courier(one.port) as ours:
                fields = {"title": "t", "body": "x" * 3_900}
                batch = [note(f"m{n}", fields=fields) for n in range(60)]  # 230 KiB into windows of 64
                assert words(await ours.send(batch, 10)) == {("accepted", "")}

        run(scene())

    def test_a_server_without_http2(self) -> None:
        async def scene() -> None:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(DATA / "server.pem")
            context.set_alpn_protocols(["http/1.1"])
            server = await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", 0, ssl=context)
            async with courier(server.sockets[0].getsockname()[1], tls=True) as ours:
                [told] = await ours.send([note()], 10)
                assert told.answer == "transient"
                assert "not_written" in (told.code or "")
            server.close()

        run(scene())


frames = st.lists(
    st.tuples(st.integers(0, 10), st.integers(0, 255), st.sampled_from([0, 1, 3, 2**31 - 1]), st.binary(max_size=40)),
    max_size=8,
).map(lambda some: b"".join(len(b).to_bytes(3) + bytes([k, f]) + s.to_bytes(4) + b for k, f, s, b in some))


class TestGarbage:
    @given(st.binary(max_size=200) | frames, st.lists(st.integers(1, 60), max_size=6))
    def test_frames_lose_nothing(self, data: bytes, cuts: list[int]) -> None:
        whole, parted = Frames(16_384), Frames(16_384)
        try:
            wanted = list(whole.feed(data))
        except NoFrame:
            return
        got: list[bytes | Goaway] = []
        rest = data
        for cut in cuts:
            got += parted.feed(rest[:cut])
            rest = rest[cut:]
        got += parted.feed(rest)
        assert b"".join(x for x in wanted if isinstance(x, bytes)) == b"".join(x for x in got if isinstance(x, bytes))
        assert [x for x in wanted if isinstance(x, Goaway)] == [x for x in got if isinstance(x, Goaway)]

    def test_any_bytes_end_the_connection_or_nothing(self) -> None:
        @given(st.lists(frames | st.binary(max_size=100), max_size=3))
        def feed(parts: list[bytes]) -> None:
            session = Session(lambda: None)
            wire = Wire()
            session.connection_made(wire)
            session.data_received(b"\0\0\0\x04\0\0\0\0\0")
            assert session.takes(10)
            one = session.submit([(b":method", b"POST"), (b":path", b"/")], b"body")
            for part in parts:
                session.data_received(part)
            assert session.lost.done() == wire.aborted
            if wire.aborted:
                assert one.future.done()
            session.abort("over")
            assert one.future.done()

        async def scene() -> None:  # one loop for all of them
            feed()

        run(scene(), 600)


class Wire(asyncio.Transport):
    """Takes everything."""

    aborted = False

    def write(self, data: Any) -> None: ...

    def is_closing(self) -> bool:
        return self.aborted

    def close(self) -> None: ...

    def abort(self) -> None:
        self.aborted = True

    def get_write_buffer_size(self) -> int:
        return 0


class TestOptions:
    @pytest.mark.parametrize(
        ("changes", "path"),
        [
            ({"key": "env:NONE"}, "options.key"),
            ({"topic": "a\nb"}, "options.topic"),
            ({"ca_file": "/nowhere.pem"}, "options.ca_file"),
        ],
    )
    def test_wrong_ones(self, changes: dict[str, Any], path: str) -> None:
        options = {"key": "env:KEY", "key_id": "K", "team_id": "T", "topic": "com.example.app", **changes}
        with pytest.raises(OptionsError) as raised:
            build("p1", Provider("apns", "push", options=options), {"KEY": P8, "NONE": "not a key"})
        assert [error[0] for error in raised.value.errors] == [path]
        assert "not a key" not in str(raised.value)

    def test_the_sandbox(self) -> None:
        options = {"key": "env:KEY", "key_id": "K", "team_id": "T", "topic": "com.example.app"}
        hosts = []
        for sandbox in (False, True):
            way = build("p1", Provider("apns", "push", options={**options, "sandbox": sandbox}), {"KEY": P8})
            place = vars(way)["_place"]
            assert isinstance(place, Place)
            hosts.append((place.authority, place.port))
        assert hosts == [("api.push.apple.com", 443), ("api.sandbox.push.apple.com", 443)]
        assert MOST_STREAMS <= 1000
