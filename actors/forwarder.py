"""Tells lines' webhooks of the uplinks that are theirs, in every gateway; the store deals out the lines.

At least once: a webhook that is asked again gets the same `webhook-id`. What fails comes again after all others of its
line, later and later, for a day.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Final

from actors.tally import Tally
from channels.adapter import NotWritten, Written
from channels.forwarding import forward_request
from channels.transport import Transport
from dispatcher.catalog import prepare
from dispatcher.documents import Line, LineUplinks
from dispatcher.store.catalog import CatalogStore
from dispatcher.store.errors import Away
from dispatcher.store.forwards import Forwards, Round
from dispatcher.uplink import Forward, wait_ms

LOOK_S: Final = 0.5  # how often it is asked whether a line is due
AT_ONCE: Final = 3  # lines, so that one whose webhook does not answer holds up no other
TIMEOUT_S: Final = 10.0
LEASE_MS: Final = 60_000
#: No request begins later: it then ends before another may take the line.
BEGIN_MS: Final = 30_000
GIVE_UP_MS: Final = 86_400_000
_log: Final = logging.getLogger(__name__)


class Forwarder:
    """`transport` reaches public addresses only, `private` any."""

    def __init__(
        self,
        forwards: Forwards,
        catalog: CatalogStore,
        transport: Transport,
        private: Transport,
        environ: Mapping[str, str],
        tally: Tally,
        clock_ms: Callable[[], int],
    ) -> None:
        self._forwards = forwards
        self._catalog = catalog
        self._transport = transport
        self._private = private
        self._environ = environ
        self._tally = tally
        self._clock_ms = clock_ms

    async def run(self) -> None:
        """For ever."""
        await asyncio.gather(*(self._work() for _ in range(AT_ONCE)))

    async def _work(self) -> None:
        while True:
            try:
                busy = await self.turn()
            except Away:
                busy = False  # the lease ends, and somebody goes on
            except Exception:
                _log.exception("gateway: a turn at the lines' webhooks failed")
                busy = False
            if not busy:
                await asyncio.sleep(LOOK_S)

    async def turn(self) -> bool:
        """Work on one line that is due; whether there was one. Raises Away."""
        now_ms = self._clock_ms()
        taken = await self._forwards.take(now_ms, now_ms + LEASE_MS)
        if taken is None:
            return False
        failures = await self._forward(taken)
        await self._forwards.settle(taken, self._clock_ms() + wait_ms(failures), failures)
        return True

    async def _forward(self, taken: Round) -> int:
        """How many times running the webhook has failed now."""
        row = await self._catalog.get("lines", taken.line)
        ready = None if row is None else prepare("lines", taken.line, row.doc)
        line: Line | None = None if ready is None else ready.document
        failures = taken.failures
        for forward in taken.forwards:
            if self._clock_ms() > taken.until_ms - LEASE_MS + BEGIN_MS:
                break
            if line is None or line.uplinks is None:
                await self._drop(forward, "unclaimed")
            elif await self._told(line.uplinks, forward):
                failures = 0
                await self._drop(forward, "delivered")
            else:
                await self._failed(forward)
                return failures + 1
        return failures

    async def _failed(self, forward: Forward) -> None:
        if self._clock_ms() - forward.taken_ms > GIVE_UP_MS:
            _log.error("line %s: its webhook did not take uplink %s within a day", forward.line, forward.id)
            await self._drop(forward, "given_up")
            return
        self._tally.add("dispatcher_forwards", (forward.line, "failed"))
        await self._forwards.postpone(forward)

    async def _drop(self, forward: Forward, outcome: str) -> None:
        await self._forwards.drop(forward)
        self._tally.add("dispatcher_forwards", (forward.line, outcome))

    async def _told(self, way: LineUplinks, forward: Forward) -> bool:
        try:
            request = forward_request(way, forward, self._environ, self._clock_ms() / 1000)
        except ValueError as error:
            _log.error("line %s: uplinks.secret: %s", forward.line, error)
            return False
        transport = self._private if way.allow_private else self._transport
        try:
            reply = await transport.send(request, TIMEOUT_S)
        except (NotWritten, Written) as error:
            _log.warning("line %s: its webhook did not answer: %s", forward.line, type(error).__name__)
            return False
        if not 200 <= reply.status < 300:
            _log.warning("line %s: its webhook answered %d", forward.line, reply.status)
            return False
        return True
