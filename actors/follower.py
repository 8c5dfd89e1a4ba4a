"""Keeps an actor's catalog in step with the store: loads it whole, then follows its numbered changes."""

import asyncio
import logging
from typing import Final

from dispatcher.catalog import DOCUMENTS, Catalog
from dispatcher.store.catalog import CatalogStore
from dispatcher.store.errors import Away, Behind

BLOCK_MS: Final = 1_000

_log = logging.getLogger(__name__)


class Follower:
    """One task that reads changes as they come; `reached` waits for a version."""

    def __init__(self, catalog: Catalog, store: CatalogStore) -> None:
        self.catalog = catalog
        self._store = store
        self._moved = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Load the catalog; returns when it is there."""
        await self._load()
        self._task = asyncio.get_running_loop().create_task(self._follow())

    async def stop(self) -> None:
        """Follow no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def reached(self, version: int) -> None:
        """Returns once the catalog is at this version or later."""
        while self.catalog.version < version:
            moved = self._moved
            await moved.wait()

    async def _load(self) -> None:
        version, documents = await self._store.load_all(list(DOCUMENTS))
        self.catalog.load(version, documents)
        self._tell()

    async def _follow(self) -> None:
        away = False
        while True:
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
            self.catalog.apply(change.version, change.kind, change.id, change.doc)
        self._tell()

    def _tell(self) -> None:
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()
