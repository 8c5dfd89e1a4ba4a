"""What users text back: kept as it came, then acted on. It unsubscribes, or goes to the line that owns its keyword."""

import asyncio
import logging
import secrets
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal

from actors.desk import BlacklistDesk, CatalogDesk
from actors.ports import ShardPeer
from actors.tally import Tally
from channels.options import unsubscribe_words
from dispatcher.answers import OVERLOADED, REJECTED, STATUSES, Want
from dispatcher.catalog import prepare
from dispatcher.documents import Line, Provider
from dispatcher.http.ports import Blacklist, Catalog, Intake, Unavailable
from dispatcher.report import Uplink
from dispatcher.store.blacklist import BlacklistStore, stored_entry
from dispatcher.store.catalog import CatalogStore
from dispatcher.store.connection import Connection
from dispatcher.store.errors import Away
from dispatcher.store.forwards import Forwards
from dispatcher.store.uplinks import Uplinks as UplinkStore
from dispatcher.trigger import Order
from dispatcher.uplink import Forward, answer_order, identity, owner_of, unsubscribes, unsubscription

Outcome = Literal["unsubscribed", "queued", "repeated", "full", "kept"]
#: A shard has so long to take the answers to those who unsubscribe.
ANSWER_S: Final = 5.0
_log: Final = logging.getLogger(__name__)


class UplinkDesk:
    """Answers once all that an uplink asks for is done, or durably queued. Hearing it again does it no second time."""

    def __init__(
        self,
        store: UplinkStore,
        forwards: Forwards,
        catalog: Catalog,
        blacklist: Blacklist,
        intake: Intake,
        region: str,
        environ: Mapping[str, str],
        tally: Tally,
        clock_ms: Callable[[], int],
    ) -> None:
        self._store = store
        self._forwards = forwards
        self._catalog = catalog
        self._blacklist = blacklist
        self._intake = intake
        self._region = region
        self._environ = environ
        self._tally = tally
        self._clock_ms = clock_ms

    async def heard(self, uplinks: Sequence[Uplink]) -> None:
        """Returns once they are kept, and acted on. Raises Unavailable."""
        try:
            await self._store.add(uplinks)
            outcomes = await self._acted(uplinks)
        except Away:
            raise Unavailable("store_unavailable") from None
        for (provider, outcome), n in outcomes.items():
            self._tally.add("dispatcher_uplinks", (provider, outcome), n)

    async def _acted(self, uplinks: Sequence[Uplink]) -> Counter[tuple[str, Outcome]]:
        outcomes: Counter[tuple[str, Outcome]] = Counter()
        lines: dict[str, Line] | None = None
        for provider in sorted({uplink.provider for uplink in uplinks}):
            document = await self._document(provider)
            words = unsubscribe_words({} if document is None else document.options, self._environ)
            mine = [uplink for uplink in uplinks if uplink.provider == provider]
            leaving = [uplink for uplink in mine if unsubscribes(uplink.text, words)]
            others = [uplink for uplink in mine if not unsubscribes(uplink.text, words)]
            if leaving:
                outcomes += await self._unsubscribe(provider, document, leaving)
            if others and lines is None:
                lines = await self._lines()
            for uplink in others:
                outcomes[provider, await self._forward(uplink, lines or {})] += 1
        return outcomes

    async def _unsubscribe(
        self, provider: str, document: Provider | None, uplinks: Sequence[Uplink]
    ) -> Counter[tuple[str, Outcome]]:
        """One that is said again is passed over: the user may have been taken off the blacklist meanwhile."""
        fresh = [uplink for uplink in uplinks if not await self._seen(uplink)]
        entries = [stored_entry(entry) for uplink in fresh for entry in unsubscription(uplink, self._region)]
        await self._blacklist.put_many(entries, f"uplink at {provider}")
        if document is not None and document.unsubscribe_answer is not None:
            orders = [answer_order(uplink, document.unsubscribe_answer, self._region) for uplink in fresh]
            await self._answer(provider, [order for order in orders if order is not None])
        for uplink in fresh:
            name = identity(uplink)
            if name is not None:
                await self._forwards.note(name)
        return Counter({(provider, "unsubscribed"): len(fresh), (provider, "repeated"): len(uplinks) - len(fresh)})

    async def _answer(self, provider: str, orders: Sequence[Order]) -> None:
        """Text back, as any trigger does. Raises Unavailable where a shard takes none now: once the vendor repeats the
        uplink, those that it took are duplicates."""
        by_shard: dict[int, list[Order]] = {}
        for order in orders:
            by_shard.setdefault(self._intake.shard_of(order.identity), []).append(order)
        for shard, some in by_shard.items():
            try:
                async with asyncio.timeout(ANSWER_S):
                    answers = await self._intake.submit(shard, some, Want.FAILED)
            except TimeoutError:
                raise Unavailable("shard_unavailable") from None
            for status, n in Counter(answers.statuses).items():
                self._tally.add("dispatcher_uplink_answers", (provider, STATUSES[status]), n)
            if REJECTED in answers.statuses:
                _log.error("provider %s: who unsubscribes is not answered: %s", provider, ", ".join(answers.reasons))
            if OVERLOADED in answers.statuses:
                raise Unavailable(next(iter(answers.reasons), "overloaded"), answers.retry_after_s)

    async def _seen(self, uplink: Uplink) -> bool:
        name = identity(uplink)
        return name is not None and await self._forwards.seen(name)

    async def _forward(self, uplink: Uplink, lines: Mapping[str, Line]) -> Outcome:
        owner = owner_of(uplink.text, lines)
        if owner is None:
            return "kept"
        line, keyword = owner
        name = identity(uplink)
        forward = Forward(f"uplink_{name or secrets.token_hex(12)}", line, keyword, self._clock_ms(), uplink)
        added = await self._forwards.add(forward, name)
        if added == "full":
            _log.error("line %s: its webhook is so far behind that an uplink is not forwarded", line)
        return added

    async def _document(self, provider: str) -> Provider | None:
        row = await self._catalog.get("providers", provider)
        ready = None if row is None else prepare("providers", provider, row.doc)
        return None if ready is None else ready.document

    async def _lines(self) -> dict[str, Line]:
        found = {id_: prepare("lines", id_, row.doc) for id_, row in (await self._catalog.list("lines")).items()}
        return {id_: ready.document for id_, ready in found.items() if ready is not None}


def uplink_desk(
    redis: Connection, shards: Sequence[ShardPeer], intake: Intake, region: str, environ: Mapping[str, str],
    tally: Tally, clock_ms: Callable[[], int],
) -> UplinkDesk:  # fmt: skip
    """The desk of one process. Who unsubscribes is on every shard's blacklist when the vendor is answered."""
    catalog = CatalogDesk(CatalogStore(redis), shards, (), clock_ms)
    blacklist = BlacklistDesk(BlacklistStore(redis), catalog, shards, clock_ms)
    return UplinkDesk(UplinkStore(redis), Forwards(redis), catalog, blacklist, intake, region, environ, tally, clock_ms)
