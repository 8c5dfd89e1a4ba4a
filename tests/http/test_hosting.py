"""One process's listener: it waits for what is in hand, and goes on listening while it does."""

import asyncio

import aiohttp
import pytest

from dispatcher.http.app import make_app
from dispatcher.http.hosting import Hosting
from dispatcher.http.settings import Settings
from tests.http.memory import House
from tests.servers import free_port
from tests.support import run, until

TRIGGER = {"id": "t0", "user": "u", "template": "pay_ok"}


def test_a_drain_waits_for_what_is_in_hand_and_goes_on_telling() -> None:
    async def main() -> None:
        house = House()
        hosting, port = Hosting(make_app(house.ports, Settings(drain_poll_s=0.01)), 5.0), free_port()
        await hosting.open("127.0.0.1", port)
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as client:
            await hosting.idle()
            house.intake.gate.clear()
            sending = asyncio.create_task(client.post("/v1/triggers", json=TRIGGER))
            await until(lambda: house.intake.in_flight == 1, "a trigger in hand")
            house.operations.reasons = ["draining"]
            idle = asyncio.create_task(hosting.idle())
            for path in ("/readyz", "/v1/lines"):
                async with client.get(path) as response:
                    assert response.status == 503
                    assert (await response.json())["detail"] == "draining"
            async with client.get("/v1/topology") as response:
                assert response.status == 200
            assert not idle.done()
            house.intake.gate.set()
            async with await sending as response:
                assert (response.status, (await response.json())["status"]) == (200, "accepted")
            await idle
            async with client.get("/readyz") as response:
                assert response.status == 503, "it listens until it is closed"
            await hosting.close()
            with pytest.raises(aiohttp.ClientConnectorError):
                await client.get("/readyz")

    run(main())


def test_a_request_that_fails_is_not_in_hand_for_ever() -> None:
    async def main() -> None:
        house = House()
        house.users.failure = RuntimeError("broken")
        hosting, port = Hosting(make_app(house.ports, Settings()), 5.0), free_port()
        await hosting.open("127.0.0.1", port)
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as client:
            async with client.get("/v1/nothing") as response:
                assert response.status == 404
            async with client.put("/v1/users/u", data=b"{") as response:
                assert response.status == 400
            await hosting.idle()
        await hosting.close()

    run(main(), timeout_s=20)
