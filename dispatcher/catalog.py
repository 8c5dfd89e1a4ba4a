"""The catalog in memory: every actor's copy of those kinds of documents that its role works by.

It is loaded whole, then follows the store's numbered changes; readers never wait for it. Nothing in here waits either:
what takes long to make ready comes in as `Prepared`.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from dispatcher.blacklist import BlacklistIndex
from dispatcher.documents import KINDS, BlacklistEntry, Line, Provider, Route, Text
from dispatcher.edit import Change, Edit, Prepared
from dispatcher.keywords import WordList
from dispatcher.rules import AnyRule
from dispatcher.template import CompiledTemplate

#: kind -> (type of one document, whether the kind is one ordered list)
DOCUMENTS: Final[dict[str, tuple[Any, bool]]] = {**KINDS, "rules": (list[AnyRule], True)}
#: Role -> the kinds it works by. A write is answered once every actor that works by its kind does by that write.
KINDS_OF: Final[dict[str, tuple[str, ...]]] = {
    "shard": ("templates", "lines", "keywords", "rules", "blacklist", "providers"),
    "router": ("providers", "routes"),
    "sender": ("providers",),
}
#: Kinds whose documents take long to make ready: up to a second for a list of 200,000 words.
SLOW: Final = frozenset({"keywords"})
#: Of a keyword list, decoded at a time: about a millisecond.
SLICE_BYTES: Final = 64 * 1024
#: The id under which a kind that is one ordered list is stored.
LIST_ID: Final = "all"
DEFAULT_LINE: Final = "default"

_log = logging.getLogger(__name__)
_decoders: Final = {kind: msgspec.json.Decoder(type_) for kind, (type_, _) in DOCUMENTS.items()}
_entries: Final = msgspec.json.Decoder(BlacklistEntry)
_texts: Final = msgspec.json.Decoder(list[Text])


def decode_document(kind: str, data: bytes) -> Any:
    """The typed document in these JSON bytes. Raises `msgspec.ValidationError` naming the path."""
    return _decoders[kind].decode(data)


def prepare(kind: str, id_: str, data: bytes) -> Prepared | None:
    """The document in the form that the catalog keeps; None, and a line in the log, when it means nothing. PUT refuses
    such a document, Redis does not. It touches nothing else, so a thread may run it."""
    try:
        if kind == "keywords":
            return Prepared(WordList(id_, _words(data)))
        document = decode_document(kind, data)
        if kind == "templates":
            document = CompiledTemplate(id_, document)
    except ValueError as error:  # msgspec's are ValueErrors, as is the complaint about a lone brace
        _log.error("catalog: %s/%s stays as it was: %s", kind, id_, error)
        return None
    return Prepared(document)


def _words(data: bytes) -> list[str]:
    """The words of a keyword list, slice by slice where it is written as we write it: decoding 200,000 at one go holds
    the interpreter's lock, and with it every other thread, for 60 ms."""
    if not (data.startswith(b'{"words":["') and data.endswith(b'"]}')):
        return list(decode_document("keywords", data).words)
    words: list[str] = []
    at, end = len(b'{"words":['), len(data) - len(b"]}")
    while at < end:
        cut = data.find(b'","', at + 1 + SLICE_BYTES)
        # After a backslash the quote may belong to the word, after a comma it may begin one that is a comma itself.
        while data[cut - 1 : cut] in (b"\\", b","):
            cut = data.find(b'","', cut + 1)
        cut = end if cut < 0 else cut + 1
        words += _texts.decode(b"[%b]" % data[at:cut])
        at = cut + 1
    return words


class Catalog:
    """What the catalog says now. Attributes are replaced, never edited, so a reader may keep what it took; only the
    blacklist, which is large, changes in place."""

    def __init__(self) -> None:
        self.version = 0
        self.templates: dict[str, CompiledTemplate] = {}
        self.lines: dict[str, Line] = {DEFAULT_LINE: Line(name=DEFAULT_LINE)}
        self.rules: tuple[AnyRule, ...] = ()
        self.providers: dict[str, Provider] = {}
        self.routes: list[Route] = []
        self.keywords: dict[str, WordList] = {}
        self.blacklist = BlacklistIndex()
        self.on_change: list[Callable[[str], None]] = []  # called with the kind, after the change

    def load(self, version: int, documents: Mapping[str, Mapping[str, bytes]]) -> None:
        """Start over from the whole catalog."""
        fresh = Catalog()
        for kind, by_id in documents.items():
            fresh.fill(kind, [Edit(id_, data) for id_, data in by_id.items()])
        fresh.version = version
        self.become(fresh)

    def become(self, fresh: "Catalog") -> None:
        """Start over from what another catalog has gathered, which is not to be used any more."""
        self.templates, self.lines, self.rules = fresh.templates, fresh.lines, fresh.rules
        self.providers, self.routes = fresh.providers, fresh.routes
        self.keywords, self.blacklist = fresh.keywords, fresh.blacklist
        self.version = fresh.version
        self._tell("*")

    def apply(self, version: int, kind: str, id_: str, data: bytes | None) -> None:
        """Follow a change of one document; `data` None deletes."""
        self.follow(Change(version, kind, [Edit(id_, data)]))

    def follow(self, change: Change) -> None:
        """Follow one change of the store, which may be without edits. Changes already seen are passed over."""
        if change.version <= self.version:
            return
        if change.edits:
            self.fill(change.kind, change.edits)
        self.version = change.version
        if change.edits:
            self._tell(change.kind)

    def fill(self, kind: str, edits: Sequence[Edit]) -> None:
        """Take documents in; the version stays what it is."""
        if kind not in DOCUMENTS:
            _log.warning("catalog: documents of kind %r are newer than this program and are passed over", kind)
        elif kind == "blacklist":
            self._list(edits)
        else:
            for edit in edits:
                self._set(kind, edit)

    def _tell(self, kind: str) -> None:
        for callback in self.on_change:
            callback(kind)

    def _set(self, kind: str, edit: Edit) -> None:
        ready = prepare(kind, edit.id, edit.doc) if isinstance(edit.doc, bytes) else edit.doc
        if ready is not None:
            self._place(kind, edit.id, ready.document)
        elif edit.doc is None:
            self._place(kind, edit.id, None)

    def _place(self, kind: str, id_: str, document: Any) -> None:
        if kind == "rules":
            self.rules = tuple(document or ())
        elif kind == "routes":
            self.routes = document or []
        else:
            setattr(self, kind, _with(getattr(self, kind), id_, document))
            self.lines.setdefault(DEFAULT_LINE, Line(name=DEFAULT_LINE))

    def _list(self, edits: Sequence[Edit]) -> None:
        for entry in _decoded([edit.was for edit in edits if edit.doc is None and edit.was is not None]):
            self.blacklist.remove(entry)
        for entry in _decoded([edit.doc for edit in edits if isinstance(edit.doc, bytes)]):
            self.blacklist.put(entry)


def _decoded(docs: Sequence[bytes]) -> Iterable[BlacklistEntry]:
    """Blacklist entries, many at once; one that cannot be read is passed over."""
    try:
        return _entries.decode_lines(b"\n".join(docs))
    except ValueError:
        found = (prepare("blacklist", "?", doc) for doc in docs)
        return [ready.document for ready in found if ready is not None]


def _with(documents: dict[str, Any], id_: str, document: Any) -> dict[str, Any]:
    changed = {**documents, id_: document}
    if document is None:
        del changed[id_]
    return changed
