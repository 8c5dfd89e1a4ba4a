"""How the system is, for people and for monitors; and the way a draining gateway treats new requests."""

import asyncio
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Middleware

from dispatcher.http.ports import Operations, Ports, Unavailable
from dispatcher.http.problem import Handler, Problem, json_response, unavailable

DRAINING: Final = "draining"
#: Still answered while draining: who waits for the end of it wants to watch.
_WATCHED: Final = frozenset({"/v1/targets", "/v1/topology"})


class OperationsPages:
    """Health, metrics and topology."""

    def __init__(self, ports: Ports) -> None:
        self._operations = ports.operations

    async def healthz(self, request: web.Request) -> web.Response:
        """This process is alive."""
        return json_response({"status": "alive"})

    async def readyz(self, request: web.Request) -> web.Response:
        """Whether requests should come here, or why not."""
        reasons = self._operations.ready()
        if reasons:
            errors = [(reason, "not ready") for reason in reasons]
            raise Problem(503, ", ".join(reasons), errors, headers={"Retry-After": "1"})
        return json_response({"status": "ready"})

    async def metrics(self, request: web.Request) -> web.Response:
        """Prometheus text format 0.0.4."""
        headers = {"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
        return web.Response(body=self._operations.metrics(), headers=headers)

    async def targets(self, request: web.Request) -> web.Response:
        """Every process's metrics address."""
        return json_response(await self._operations.targets())

    async def topology(self, request: web.Request) -> web.Response:
        """Nodes, actors, partitions."""
        return json_response(await self._operations.topology())


class InHand:
    """The requests that are worked on now; each is entered and left."""

    def __init__(self) -> None:
        self._requests = 0
        self._none = asyncio.Event()
        self._none.set()

    def __enter__(self) -> None:
        self._requests += 1
        self._none.clear()

    def __exit__(self, *_: object) -> None:
        self._requests -= 1
        if self._requests == 0:
            self._none.set()

    async def none(self) -> None:
        """Returns once none is left."""
        await self._none.wait()


IN_HAND: Final = web.AppKey("in_hand", InHand)


def turn_away(operations: Operations, in_hand: InHand) -> Middleware:
    """The middleware that sends new requests elsewhere while this gateway drains, and knows the others."""

    @web.middleware
    async def drain(request: web.Request, handler: Handler) -> web.StreamResponse:
        if not request.path.startswith("/v1/") or request.path in _WATCHED:
            return await handler(request)
        if DRAINING in operations.ready():
            raise unavailable(Unavailable(DRAINING), close=True)
        with in_hand:
            return await handler(request)

    return drain
