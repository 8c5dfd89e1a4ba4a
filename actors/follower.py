"""Keeps an actor's catalog in step with the store: loads its kinds slice by slice, then follows numbered changes."""

import asyncio
import logging
from collections.abc import Sequence
from typing import Final

from actors.ending import end
from dispatcher.catalog import DOCUMENTS, SLOW, Catalog, prepare
from dispatcher.edit import Change, Edit
from dispatcher.store.blacklist import BATCH
from dispatcher.store.catalog import SLICE, CatalogStore
from dispatcher.store.errors import Away, Behind

BLOCK_MS: Final = 1_000
#: Documents of a kind read at a time while loading; other kinds have fewer and larger ones.
SLICES: Final = {"blacklist": BATCH}

_log = logging.getLogger(__name__)


class Follower:
    """One task that reads changes as they come; `reached` waits for a version.

    Documents of other kinds than `kinds` are passed over, while their changes move the version on: whoever waits for a
    version need not know whom it concerns.
    """

    def __init__(self, catalog: Catalog, store: CatalogStore, kinds: Sequence[str] = tuple(DOCUMENTS)) -> None:
        self.catalog = catalog
        self._store = store
        self._kinds = kinds
        self._moved = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Load the catalog; returns when it is there."""
        await self._load()
        self._task = asyncio.get_running_loop().create_task(self._follow())

    async def stop(self) -> None:
        """Follow no more."""
        if self._task is not None:
            await end(self._task)

    async def reached(self, version: int) -> None:
        """Returns once the catalog is at this version or later."""
        while self.catalog.version < version:
            moved = self._moved
            await moved.wait()

    async def _load(self) -> None:
        while True:
            try:
                fresh = await self._gathered()
            except Behind as error:
                _log.warning("catalog: %s; loading again", error)
            else:
                break
        self.catalog.become(fresh)
        self._tell()

    async def _gathered(self) -> Catalog:
        """The whole catalog, gathered beside the one in use. Raises Behind.

        First the version is taken, then everything is scanned, then the changes since that version are applied, up to
        what the scan may have seen. A scan of documents that change sees some before and some after; since an edit puts
        or deletes a whole document, doing it again does no harm, and after the last one everything is of one version.
        """
        fresh = Catalog()
        fresh.version = await self._store.version()
        for kind in self._kinds:
            async for slice_ in self._store.scan(kind, SLICES.get(kind, SLICE)):
                fresh.fill(kind, await self._ready(kind, slice_))
        until = await self._store.version()
        while fresh.version < until:
            for change in await self._store.changes(fresh.version, 0):
                await self._take(fresh, change)
            until = await self._store.version()
        return fresh

    async def _follow(self) -> None:
        away = False
        me = asyncio.current_task()
        # Before Python 3.12 `asyncio.wait_for`, with which the Redis client sends, swallows a cancellation that comes
        # when what it waits for is done (bpo-37658). That it was asked for is still known.
        while me is not None and not me.cancelling():
            try:
                await self._step()
                if away:
                    _log.warning("catalog: the store answers again")
                away = False
            except Away as error:
                if not away:
                    _log.warning("catalog: %s; asking again until it does", error)
                away = True
                await asyncio.sleep(0.5)
            except Exception:  # a bug in whoever works by the catalog must not leave everyone on an old one
                _log.exception("catalog: a change could not be put to work")
                await asyncio.sleep(0.5)

    async def _step(self) -> None:
        try:
            changes = await self._store.changes(self.catalog.version, BLOCK_MS)
        except Behind:
            await self._load()
            return
        for change in changes:
            try:
                await self._take(self.catalog, change)
            finally:
                self._tell()

    def _tell(self) -> None:
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()

    async def _take(self, catalog: Catalog, change: Change) -> None:
        edits = await self._ready(change.kind, change.edits) if change.kind in self._kinds else ()
        catalog.follow(Change(change.version, change.kind, edits))
        if len(edits) > 1:
            await asyncio.sleep(0)  # many batches at once are not one long pause

    async def _ready(self, kind: str, edits: Sequence[Edit]) -> Sequence[Edit]:
        """The edits with their documents at hand: big ones fetched, those that take long made ready by a thread."""
        if kind not in SLOW and not any(edit.big for edit in edits):
            return edits
        return [ready for edit in edits if (ready := await self._ready_one(kind, edit)) is not None]

    async def _ready_one(self, kind: str, edit: Edit) -> Edit | None:
        if edit.big:
            found = await self._store.get(kind, edit.id)
            if found is None:  # deleted since; that change comes next
                return None
            edit = Edit(edit.id, found.doc)
        if isinstance(edit.doc, bytes) and kind in SLOW:
            prepared = await asyncio.to_thread(prepare, kind, edit.id, edit.doc)
            return None if prepared is None else Edit(edit.id, prepared)
        return edit
