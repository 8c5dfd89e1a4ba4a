"""Callback addresses: whoever knows the secret is heard and answered in its own words; everybody else hears 404."""

from typing import Any

import pytest

from dispatcher.http.callbacks import MAX_CALLBACK_BYTES
from dispatcher.http.ports import Unavailable, Untrue, VendorAnswer
from dispatcher.http.settings import Key, Settings
from tests.http.memory import House, MemoryVendor, serving
from tests.support import run

KEYED = Settings(keys=(Key("ann", "s", ("admin",)),))
PATH = "/v1/reports/p+1/s3"


@pytest.fixture(autouse=True)
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """A caller whose body is not read is let go soon."""
    monkeypatch.setattr("dispatcher.http.app.LINGERING_S", 0.05)


def let_in(house: House) -> MemoryVendor:
    vendor = house.vendors.known["p+1", "s3"] = MemoryVendor()
    return vendor


@pytest.mark.parametrize("what", ["reports", "uplinks"])
@pytest.mark.parametrize("method", ["POST", "GET"])
def test_a_vendor_needs_no_key_and_is_answered_in_its_own_words(what: str, method: str) -> None:
    async def main() -> None:
        async with serving(KEYED) as house:
            vendor = let_in(house)
            vendor.answer = VendorAnswer(202, "text/xml; charset=utf-8", b"<Response/>")
            body = b"a=1&b=%20" if method == "POST" else None
            path = f"/v1/{what}/p+1/s3?x=1&y=%E9%80%80"
            status, headers, told = await house.call(method, path, body, "text/plain", X_Sign="Abc")
            assert (status, headers["Content-Type"], told) == (202, "text/xml; charset=utf-8", b"<Response/>")
            [call] = vendor.calls
            assert (call.what, call.method, call.query) == (what, method, {"x": "1", "y": "退"})
            assert call.url == f"http://127.0.0.1:{house.port}{path}"
            assert call.body == (body or b"")
            assert call.headers["x-sign"] == "Abc"
            assert house.vendors.addresses == ["127.0.0.1"]

    run(main())


def test_the_address_is_the_one_the_vendor_knows() -> None:
    async def main() -> None:
        async with serving(Settings(public_url="https://msg.example.com/in")) as house:
            vendor = let_in(house)
            await house.call("POST", PATH, b"{}")
            assert vendor.calls[0].url == f"https://msg.example.com/in{PATH}"
            provider: dict[str, Any] = {"kind": "webhook", "channel": "sms", "options": {"url": "https://x"}}
            assert (await house.call("PUT", "/v1/providers/p+1", provider))[0] == 201
            _, _, shown = await house.call("GET", "/v1/providers/p+1")
            secret = shown["options"]["callback_secret"]
            assert shown["reports_url"] == f"https://msg.example.com/in/v1/reports/p%2B1/{secret}"
            assert shown["uplinks_url"] == f"https://msg.example.com/in/v1/uplinks/p%2B1/{secret}"
            provider["options"]["callback_secret"] = "env:S"
            await house.call("PUT", "/v1/providers/p+1", provider)
            _, _, shown = await house.call("GET", "/v1/providers/p+1")
            assert shown["reports_url"] == "https://msg.example.com/in/v1/reports/p%2B1/***"

    run(main())


@pytest.mark.parametrize("path", ["/v1/reports/p+1/s4", "/v1/reports/p2/s3", "/v1/uplinks/p+1/", "/v1/reports/p+1/s3/"])
def test_a_stranger_finds_nothing(path: str) -> None:
    async def main() -> None:
        async with serving() as house:
            vendor = let_in(house)
            for data in (b"[]", b"x" * (MAX_CALLBACK_BYTES + 1)):  # not even read
                status, _, problem = await house.call("POST", path, data)
                assert (status, problem["detail"]) == (404, "there is nothing at this path")
            assert vendor.calls == []

    run(main())


@pytest.mark.parametrize(
    ("failure", "status", "detail"),
    [
        (Untrue(), 403, "the signature is not the vendor's"),
        (Unavailable("store_unavailable"), 503, "store_unavailable"),
        (Unavailable("shard_unavailable", 2.0), 503, "shard_unavailable"),
    ],
)
def test_a_vendor_that_was_not_heard_is_told_so(failure: Exception, status: int, detail: str) -> None:
    async def main() -> None:
        async with serving() as house:
            let_in(house).failure = failure
            told, headers, problem = await house.call("POST", PATH, b"[]")
            assert (told, problem["detail"]) == (status, detail)
            assert ("Retry-After" in headers) == (status == 503)

    run(main())


def test_a_body_has_an_end() -> None:
    async def main() -> None:
        async with serving() as house:
            vendor = let_in(house)
            assert (await house.call("POST", PATH, b"x" * MAX_CALLBACK_BYTES))[0] == 200
            assert (await house.call("POST", PATH, b"x" * (MAX_CALLBACK_BYTES + 1)))[0] == 413
            assert [len(call.body) for call in vendor.calls] == [MAX_CALLBACK_BYTES]

    run(main())


def test_the_description_says_that_no_key_is_needed() -> None:
    async def main() -> None:
        async with serving() as house:
            _, _, document = await house.call("GET", "/openapi.json")
            for what in ("reports", "uplinks"):
                found: dict[str, Any] = document["paths"][f"/v1/{what}/{{provider}}/{{secret}}"]
                assert found.keys() == {"get", "post"}
                for operation in found.values():
                    assert operation["security"] == []
                    assert operation["responses"].keys() == {"200", "403", "404", "413", "503"}

    run(main())
