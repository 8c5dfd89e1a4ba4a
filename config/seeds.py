"""The documents that a configuration puts into an empty catalog."""

from collections.abc import Iterator
from typing import Any, Final

import msgspec

import channels
from config.explain import explain
from config.schema import SEEDED, Config
from dispatcher.catalog import DEFAULT_LINE, DOCUMENTS, LIST_ID, decode_document
from dispatcher.documents import Provider, Template
from dispatcher.rules import check_rules
from dispatcher.template import check_template

MAX_ID: Final = 128
Fault = tuple[str, str]


def seeds(config: Config) -> dict[str, dict[str, bytes]]:
    """kind -> id -> JSON, as `CatalogStore.seed` takes it; a kind that is one list has the id `LIST_ID`."""
    documents: dict[str, dict[str, bytes]] = {}
    for kind in SEEDED:
        value = getattr(config, kind)
        by_id = {LIST_ID: value} if isinstance(value, list) else value
        documents[kind] = {id_: msgspec.json.encode(document) for id_, document in by_id.items()}
    return documents


def check_seeds(config: Config) -> Iterator[Fault]:
    """`(path, what)` for every document that is not what its kind wants, or refers to what is not there."""
    for kind in SEEDED:
        value = getattr(config, kind)
        if isinstance(value, list):
            yield from _check(kind, value, kind)
        else:
            for id_, document in value.items():
                path = f"{kind}.{id_}"
                if not 1 <= len(id_) <= MAX_ID:
                    yield path, f"an id has 1 to {MAX_ID} characters"
                yield from _check(kind, document, path)
    yield from _references(config)


def _check(kind: str, raw: Any, path: str) -> Iterator[Fault]:
    try:
        document = decode_document(kind, msgspec.json.encode(raw))
    except msgspec.ValidationError as error:
        yield explain(error, DOCUMENTS[kind][0], raw, path)
        return
    if isinstance(document, Template):
        for at, what in check_template(document):
            yield f"{path}.{at}", what
    elif isinstance(document, Provider):
        for at, what in channels.check(document):
            yield f"{path}.{at}", what
    elif kind == "rules":
        for at, what in check_rules(document):
            yield path + at, what


def _references(config: Config) -> Iterator[Fault]:
    for i, route in enumerate(config.routes):
        for j, provider in enumerate(route.get("providers", ())):
            if provider.get("id") not in config.providers:
                yield f"routes[{i}].providers[{j}].id", f'there is no provider "{provider.get("id")}"'
    for id_, template in config.templates.items():
        line = template.get("line")
        if line is not None and line != DEFAULT_LINE and line not in config.lines:
            yield f"templates.{id_}.line", f'there is no line "{line}"'
