"""The gateway's side of callbacks: whose call it is, what it says, and where that goes."""

from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from actors.desk import asked
from actors.pages import Pages
from actors.reports import ReportDesk
from channels import OptionsError, callbacks
from channels.callers import admits
from channels.kind import Callback, Callbacks, Heard, Missing, NotTrue
from channels.options import Options
from dispatcher.catalog import decode_document
from dispatcher.documents import Provider
from dispatcher.http.ports import Untrue, VendorAnswer, VendorCall
from dispatcher.report import Report, Uplink
from dispatcher.store.catalog import CatalogStore

#: Providers whose options are kept open; there are seldom more than a dozen.
MOST_OPEN: Final = 1_000


class OneVendor:
    """`dispatcher.http.ports.Vendor`: one provider, let in."""

    def __init__(
        self,
        provider: str,
        channel: str,
        how: Callbacks,
        options: Options,
        desk: ReportDesk,
        pages: Pages,
        clock_ms: Callable[[], int],
    ) -> None:
        self._provider = provider
        self._channel = channel
        self._how = how
        self._options = options
        self._desk = desk
        self._pages = pages
        self._clock_ms = clock_ms

    async def heard(self, call: VendorCall) -> VendorAnswer:
        """Answers once what it said is durable."""
        callback = Callback(call.method, call.url, call.query, call.headers, call.body, self._clock_ms() / 1000)
        read = self._how.reports if call.what == "reports" else self._how.uplinks
        try:
            heard = await self._judged(read, callback)
        except NotTrue:
            raise Untrue from None
        if heard.visit is not None:
            await self._pages.visit(heard.visit)
        if heard.items:
            await self._desk.heard([self._placed(item) for item in heard.items])
        return VendorAnswer(heard.status, heard.content_type, heard.body)

    async def _judged(self, read: Callable[[str, Callback, Options], Heard], callback: Callback) -> Heard:
        try:
            return read(self._provider, callback, self._options)
        except Missing as missing:
            url = missing.url
        fetched = {url: await self._pages.get(url)}
        return read(self._provider, msgspec.structs.replace(callback, fetched=fetched), self._options)

    def _placed(self, item: Report | Uplink) -> Report | Uplink:
        if isinstance(item, Uplink) and not item.channel:
            return msgspec.structs.replace(item, channel=self._channel)
        return item


class VendorDesk:
    """`dispatcher.http.ports.Vendors` over the catalog in the store: each call is judged by the document as it is."""

    def __init__(
        self,
        store: CatalogStore,
        desk: ReportDesk,
        pages: Pages,
        environ: Mapping[str, str],
        clock_ms: Callable[[], int],
    ) -> None:
        self._store = store
        self._desk = desk
        self._pages = pages
        self._environ = environ
        self._clock_ms = clock_ms
        self._open: dict[str, tuple[int, str, Callbacks | None, Options]] = {}

    async def find(self, provider: str, secret: str, address: str | None) -> OneVendor | None:
        """The provider's vendor, when the secret is its own and the caller's address is allowed. One that is switched
        off is still heard: its last reports may be on their way."""
        row = await asked(self._store.get("providers", provider))
        if row is None:
            return None
        known = self._open.get(provider)
        if known is None or known[0] != row.version:
            document: Provider = decode_document("providers", row.doc)
            try:
                how, options = callbacks(document, self._environ)
            except OptionsError:
                return None
            if len(self._open) >= MOST_OPEN:
                self._open.clear()
            known = self._open[provider] = row.version, document.channel, how, options
        _, channel, how, options = known
        if how is None or not admits(options, secret, address):
            return None
        return OneVendor(provider, channel, how, options, self._desk, self._pages, self._clock_ms)
