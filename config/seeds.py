"""The documents that a configuration puts into an empty catalog."""

from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Any, Final

import msgspec

import channels
from channels.forwarding import check_line
from config.explain import explain
from config.schema import SEEDED, Config
from dispatcher.catalog import DEFAULT_LINE, DOCUMENTS, LIST_ID, decode_document
from dispatcher.http.providers import with_callback_secret
from dispatcher.http.references import noun, references
from dispatcher.keywords import check_words
from dispatcher.rules import check_rules
from dispatcher.template import check_template
from dispatcher.uplink import answer_faults, keyword_faults

MAX_ID: Final = 128
_NAMING: Final = ("templates", "rules", "routes", "providers")
Fault = tuple[str, str]
#: What a kind's documents must hold beyond their type.
_CHECKS: Final[dict[str, Callable[[Any], Sequence[Fault]]]] = {
    "templates": check_template,
    "lines": check_line,
    "rules": check_rules,
    "providers": channels.check,
    "keywords": lambda document: check_words(document.words),
}


def seeds(config: Config) -> dict[str, dict[str, bytes]]:
    """kind -> id -> JSON, as `CatalogStore.seed` takes it; a kind that is one list has the id `LIST_ID`."""
    documents: dict[str, dict[str, bytes]] = {}
    for kind in SEEDED:
        value = getattr(config, kind)
        by_id = {LIST_ID: value} if isinstance(value, list) else value
        documents[kind] = {id_: msgspec.json.encode(document) for id_, document in by_id.items()}
    return documents


def with_callback_secrets(documents: dict[str, dict[str, bytes]], chance: Random) -> dict[str, dict[str, bytes]]:
    """The same, where every provider that has none is given a secret for its callback addresses."""
    providers = {
        id_: msgspec.json.encode(with_callback_secret(decode_document("providers", doc), None, chance))
        for id_, doc in documents["providers"].items()
    }
    return {**documents, "providers": providers}


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
    yield from _keywords(config)
    yield from _answers(config)


def _check(kind: str, raw: Any, path: str) -> Iterator[Fault]:
    try:
        document = decode_document(kind, msgspec.json.encode(raw))
    except msgspec.ValidationError as error:
        yield explain(error, DOCUMENTS[kind][0], raw, path)
        return
    for at, what in _CHECKS[kind](document) if kind in _CHECKS else ():
        yield path + at if kind == "rules" else f"{path}.{at}", what


def _keywords(config: Config) -> Iterator[Fault]:
    """Keywords of lines that have another owner."""
    try:
        lines = {id_: decode_document("lines", msgspec.json.encode(raw)) for id_, raw in config.lines.items()}
    except msgspec.ValidationError:
        return  # told already
    for id_, line in lines.items():
        for at, what in keyword_faults(id_, line, lines):
            yield f"lines.{id_}.{at}", what


def _answers(config: Config) -> Iterator[Fault]:
    """Answers to those who unsubscribe that cannot be sent."""
    try:
        templates, providers = (
            {id_: decode_document(kind, msgspec.json.encode(raw)) for id_, raw in getattr(config, kind).items()}
            for kind in ("templates", "providers")
        )
        for id_, provider in providers.items():
            for at, what in answer_faults(provider, templates):
                yield f"providers.{id_}.{at}", what
    except ValueError:
        return  # told already, as is a lone brace


def _references(config: Config) -> Iterator[Fault]:
    """What a document names that the configuration does not have."""
    for kind in _NAMING:
        value = getattr(config, kind)
        by_path = {kind: value} if isinstance(value, list) else {f"{kind}.{id_}.": doc for id_, doc in value.items()}
        for path, raw in by_path.items():
            try:
                document = decode_document(kind, msgspec.json.encode(raw))
            except msgspec.ValidationError:
                continue  # told already
            for at, named, id_ in references(kind, document):
                if id_ not in getattr(config, named) and (named, id_) != ("lines", DEFAULT_LINE):
                    yield path + at, f'there is no {noun(named)} "{id_}"'
