"""The HTTP application, put together."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Final

from aiohttp import web

from dispatcher.http.auth import authentication
from dispatcher.http.openapi import Description
from dispatcher.http.operations import DRAINING, IN_HAND, InHand, turn_away
from dispatcher.http.ports import Operations, Ports
from dispatcher.http.problem import problems
from dispatcher.http.routes import Route, routes_of
from dispatcher.http.settings import Settings
from dispatcher.http.triggers import Triggers

#: How long an early answer waits for its caller to stop sending, so that it is not lost to a reset connection.
LINGERING_S: Final = 2.0


def make_app(ports: Ports, settings: Settings) -> web.Application:
    """The application over these ports. Nothing in it knows Ray, Redis or a clock other than the loop's.

    Serve it with `web.AppRunner(app, access_log=None)`: the access log alone costs more than a small request.
    """
    in_hand = InHand()
    middlewares = (problems, authentication(settings.keys), turn_away(ports.operations, in_hand))
    app = web.Application(
        middlewares=middlewares,
        handler_args={"read_bufsize": settings.read_bytes, "lingering_time": LINGERING_S},
        client_max_size=settings.body_bytes,
    )
    app[IN_HAND] = in_hand
    triggers = Triggers(ports, settings)
    description = Description()
    routes = [
        *routes_of(ports, settings, triggers),
        Route("GET", "/", _to_docs, "Operations", "Leads to /docs", answers={302: str}, content="text/html"),
        Route("GET", "/openapi.json", description.openapi, "Operations", "This description", answers={200: dict}),
        Route(
            "GET", "/docs", description.docs, "Operations", "This description, for reading", answers={200: str},
            content="text/html",
        ),
    ]  # fmt: skip
    description.write(routes)
    for route in routes:
        app.router.add_route(route.method, route.path, route.handler)

    async def watch(_: web.Application) -> AsyncIterator[None]:
        task = asyncio.get_running_loop().create_task(_stop_on_drain(triggers, ports.operations, settings.drain_poll_s))
        yield
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    async def stop(_: web.Application) -> None:
        triggers.stop()  # before aiohttp waits for the requests in hand

    app.cleanup_ctx.append(watch)
    app.on_shutdown.append(stop)
    return app


async def _to_docs(_: web.Request) -> web.Response:
    """Somebody looks at the server with a browser."""
    raise web.HTTPFound("/docs")


async def _stop_on_drain(triggers: Triggers, operations: Operations, poll_s: float) -> None:
    """A stream that only waits for its caller asks nobody, so somebody has to ask for it."""
    while True:
        if DRAINING in operations.ready():
            triggers.stop()
        await asyncio.sleep(poll_s)
