"""The catalog in memory: every actor's copy of templates, lines, rules, providers, routes and blacklist.

It is loaded whole, then follows the store's numbered changes; readers never wait for it.
"""

import logging
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from dispatcher.blacklist import BlacklistIndex
from dispatcher.documents import KINDS, Line, Provider, Route
from dispatcher.rules import AnyRule
from dispatcher.template import CompiledTemplate

#: kind -> (type of one document, whether the kind is one ordered list)
DOCUMENTS: Final[dict[str, tuple[Any, bool]]] = {**KINDS, "rules": (list[AnyRule], True)}
#: The id under which a kind that is one ordered list is stored.
LIST_ID: Final = "all"
DEFAULT_LINE: Final = "default"

_log = logging.getLogger(__name__)
_decoders: Final = {kind: msgspec.json.Decoder(type_) for kind, (type_, _) in DOCUMENTS.items()}


def decode_document(kind: str, data: bytes) -> Any:
    """The typed document in these JSON bytes. Raises `msgspec.ValidationError` naming the path."""
    return _decoders[kind].decode(data)


class Catalog:
    """What the catalog says now. Attributes are replaced, never edited, so a reader may keep what it took."""

    def __init__(self) -> None:
        self.version = 0
        self.templates: dict[str, CompiledTemplate] = {}
        self.lines: dict[str, Line] = {DEFAULT_LINE: Line(name=DEFAULT_LINE)}
        self.rules: tuple[AnyRule, ...] = ()
        self.providers: dict[str, Provider] = {}
        self.routes: list[Route] = []
        self.blacklist = BlacklistIndex()
        self.on_change: list[Callable[[str], None]] = []  # called with the kind, after the change

    def load(self, version: int, documents: Mapping[str, Mapping[str, bytes]]) -> None:
        """Start over from the whole catalog."""
        fresh = Catalog()
        for kind, by_id in documents.items():
            for id_, data in by_id.items():
                fresh._set(kind, id_, data)
        self.templates, self.lines, self.rules = fresh.templates, fresh.lines, fresh.rules
        self.providers, self.routes, self.blacklist = fresh.providers, fresh.routes, fresh.blacklist
        self.version = version
        self._tell("*")

    def apply(self, version: int, kind: str, id_: str, data: bytes | None) -> None:
        """Follow one change of the store; `data` None deletes. Changes already seen are passed over."""
        if version <= self.version:
            return
        self._set(kind, id_, data)
        self.version = version
        self._tell(kind)

    def _tell(self, kind: str) -> None:
        for callback in self.on_change:
            callback(kind)

    def _set(self, kind: str, id_: str, data: bytes | None) -> None:
        if kind not in DOCUMENTS:
            _log.warning("catalog: documents of kind %r are newer than this program and are passed over", kind)
            return
        try:
            document = None if data is None else decode_document(kind, data)
        except msgspec.ValidationError as error:
            _log.error("catalog: %s/%s stays as it was: %s", kind, id_, error)
            return
        try:
            self._place(kind, id_, document)
        except ValueError as error:  # decodes and means nothing, such as a lone brace: PUT refuses it, Redis does not
            _log.error("catalog: %s/%s stays as it was: %s", kind, id_, error)

    def _place(self, kind: str, id_: str, document: Any) -> None:
        if kind == "rules":
            self.rules = tuple(document or ())
        elif kind == "routes":
            self.routes = document or []
        elif kind == "blacklist":
            if document is None:
                self.blacklist.remove(id_)
            else:
                self.blacklist.put(id_, document)
        elif kind == "templates":
            self.templates = _with(self.templates, id_, document and CompiledTemplate(id_, document))
        elif kind == "lines":
            self.lines = _with(self.lines, id_, document)
            self.lines.setdefault(DEFAULT_LINE, Line(name=DEFAULT_LINE))
        elif kind == "providers":
            self.providers = _with(self.providers, id_, document)


def _with(documents: dict[str, Any], id_: str, document: Any) -> dict[str, Any]:
    changed = {**documents, id_: document}
    if document is None:
        del changed[id_]
    return changed
