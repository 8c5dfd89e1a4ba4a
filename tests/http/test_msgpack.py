"""Streams of MessagePack maps."""

from typing import Any

import msgspec

from dispatcher.http.framing import Framer
from tests.http.memory import mixed, serving
from tests.support import run


def test_msgpack_is_answered_in_msgpack() -> None:
    async def main() -> None:
        async with serving() as house:
            house.intake.judge = mixed
            triggers: list[dict[str, Any]] = [
                {"id": f"t{i}", "user": f"u{i}", "template": "a", "params": {"n": i}} for i in range(8)
            ]
            triggers[3]["bad"] = 1
            big = msgspec.msgpack.encode({"template": "a" * 100_000})
            body = b"".join(msgspec.msgpack.encode(t) for t in triggers) + big + b"\x01" + b"\x81\xa8temp"
            status, headers, raw = await house.call("POST", "/v1/triggers", body, "application/x-msgpack")
            assert status == 200
            assert headers["Content-Type"] == "application/x-msgpack"
            *results, last = _maps(raw)
            results.sort(key=lambda r: r["seq"])
            assert [r["status"][0] for r in results] == list("afdrafdi" + "rrr")
            assert results[3]["id"] == "t3"
            assert [r["reason"] for r in results[8:]] == [
                "invalid: trigger: larger than 65536 bytes",
                "invalid: trigger: Expected `object`, got `int`",
                "invalid: trigger: the stream ended inside it",
            ]
            assert (last["summary"]["total"], last["summary"]["rejected"]) == (11, 4)

    run(main())


def test_a_framing_error_ends_a_msgpack_stream() -> None:
    async def main() -> None:
        async with serving() as house:
            good = msgspec.msgpack.encode({"id": "t0", "user": "u", "template": "a"})
            status, _, raw = await house.call("POST", "/v1/triggers", good + b"\xc1" + good, "application/x-msgpack")
            first, failure, last = _maps(raw)
            assert status == 200
            assert (first["status"], failure["status"], failure["seq"]) == ("accepted", "rejected", 1)
            assert failure["reason"].startswith("invalid: stream: byte 0xc1")
            assert last["summary"]["total"] == 2

    run(main())


def _maps(raw: bytes) -> list[Any]:
    found, failure = Framer(1 << 20).feed(raw)
    assert failure is None
    return [msgspec.msgpack.decode(one) for one in found if one is not None]
