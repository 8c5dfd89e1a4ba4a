"""What a document of the catalog must hold beyond its type. Each check says `(path, message)`."""

import asyncio
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from dispatcher.catalog import DOCUMENTS, decode_document
from dispatcher.documents import Line, Provider, Template
from dispatcher.http.ports import Catalog
from dispatcher.http.problem import undecodable, unprocessable
from dispatcher.http.providers import check_masks, without_read_only
from dispatcher.http.references import Reference, dangling, references
from dispatcher.http.settings import Settings
from dispatcher.keywords import check_words
from dispatcher.rules import check_rules
from dispatcher.template import check_template
from dispatcher.uplink import answer_faults, keyword_faults

#: `(path, message)` of everything wrong.
Errors = list[tuple[str, str]]

#: A list where every word is wrong is not told word by word.
MOST_ERRORS: Final = 100


def decode(kind: str, body: bytes) -> Any:
    """The typed document. Raises Problem naming the path."""
    try:
        if kind == "providers":
            body = without_read_only(body)
        return decode_document(kind, body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise undecodable(error, body) from None


async def check(catalog: Catalog, kind: str, id_: str, document: Any, settings: Settings) -> None:
    """Raises Problem when the document cannot be."""
    errors: Errors = []
    if kind == "templates":
        errors = check_template(document) or await _unfit(catalog, id_, document)
    elif kind == "rules":
        errors = check_rules(document)
    elif kind == "providers":
        errors = check_masks(document) or settings.check_provider(document)
        errors = [*errors, *await _unanswerable(catalog, document)]
    elif kind == "lines":
        errors = [*settings.check_line(document), *await _taken(catalog, id_, document)]
    elif kind == "keywords":
        errors = await asyncio.to_thread(check_words, document.words)  # seconds, for a list that is long enough
    errors = [*errors, *await missing(catalog, references(kind, document))]
    if errors:
        raise unprocessable(errors[:MOST_ERRORS])


async def _taken(catalog: Catalog, id_: str, line: Line) -> Errors:
    """Two lines that ask for one keyword in the same moment may both get it; the lower id then has it."""
    if line.uplinks is None:
        return []
    others = {other: decode_document("lines", row.doc) for other, row in (await catalog.list("lines")).items()}
    return keyword_faults(id_, line, others)


async def _unanswerable(catalog: Catalog, provider: Provider) -> Errors:
    """What is wrong with its answer to those who unsubscribe."""
    answer = provider.unsubscribe_answer
    row = None if answer is None else await catalog.get("templates", answer.template)
    return answer_faults(provider, {} if answer is None or row is None else {answer.template: _template(row.doc)})


async def _unfit(catalog: Catalog, id_: str, template: Template) -> Errors:
    """The providers that answer with this template, where it would not do any more."""
    return [
        (f"providers/{other}: {path}", message)
        for other, row in (await catalog.list("providers")).items()
        for path, message in answer_faults(decode_document("providers", row.doc), {id_: template})
    ]


def _template(doc: bytes) -> Template:
    found: Template = decode_document("templates", doc)
    return found


async def missing(catalog: Catalog, wanted: Sequence[Reference]) -> Errors:
    """What is named and does not exist."""
    known = {kind: await catalog.ids(kind) for kind in {reference.kind for reference in wanted}}
    return dangling(wanted, known)


async def users_of(catalog: Catalog, kind: str, id_: str) -> Errors:
    """The documents that name this one."""
    found = []
    for other in ("rules", "routes", "templates", "providers"):
        if other not in DOCUMENTS or kind not in ("lines", "templates", "providers", "keywords"):
            continue
        for other_id, versioned in (await catalog.list(other)).items():
            document = decode_document(other, versioned.doc)
            place = other if DOCUMENTS[other][1] else f"{other}/{other_id}"
            found += [
                (f"{place}: {reference.path}", f"names {id_!r}")
                for reference in references(other, document)
                if (reference.kind, reference.id) == (kind, id_)
            ]
    return found
