"""What the catalog's news say: one numbered change of one kind, of one document or of many."""

from collections.abc import Sequence
from typing import Any, NamedTuple


class Prepared(NamedTuple):
    """A document made ready for use beforehand, because that takes long (see `dispatcher.catalog.prepare`)."""

    document: Any


class Edit(NamedTuple):
    """What became of one document. `doc`: its JSON, None where it was deleted, or where it is `big`: too big to travel
    with the news, to be fetched from the store. `was`: the JSON of a deleted one, None where it was big."""

    id: str
    doc: bytes | Prepared | None
    was: bytes | None = None
    big: bool = False


class Change(NamedTuple):
    """One write as everybody hears of it."""

    version: int
    kind: str
    edits: Sequence[Edit]
