"""Pages on vendors' own sites that their callbacks need: certificates, and links that confirm a subscription."""

import time
from collections.abc import Callable
from typing import Final

from channels.adapter import NotWritten, Request, Written
from channels.transport import Transport
from dispatcher.http.ports import Unavailable

#: Vendors give up on an answer after 10 to 15 seconds.
TIMEOUT_S: Final = 5.0
KEEP_S: Final = 3_600.0
#: More than one is known only while a vendor changes its certificate, or of several regions.
MOST_KEPT: Final = 32


class Pages:
    """What was got is kept for an hour. `channels.kind.Missing` and `Heard.visit` say which URLs those may be."""

    def __init__(self, transport: Transport, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._transport = transport
        self._clock_s = clock_s
        self._kept: dict[str, tuple[float, bytes]] = {}

    async def get(self, url: str) -> bytes:
        """The page. Raises Unavailable: the vendor is to say it again later."""
        kept = self._kept.get(url)
        if kept is not None and self._clock_s() < kept[0]:
            return kept[1]
        body = await self.visit(url)
        if len(self._kept) >= MOST_KEPT:
            self._kept.clear()
        self._kept[url] = self._clock_s() + KEEP_S, body
        return body

    async def visit(self, url: str) -> bytes:
        """The page, got anew. Raises Unavailable."""
        try:
            reply = await self._transport.send(Request("GET", url, {"user-agent": "dispatcher"}, b""), TIMEOUT_S)
        except (NotWritten, Written):
            raise Unavailable("vendor_page_unavailable") from None
        if reply.status != 200:
            raise Unavailable("vendor_page_unavailable")
        return reply.body
