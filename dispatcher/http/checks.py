"""What a document of the catalog must hold beyond its type. Each check says `(path, message)`."""

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Struct

from dispatcher.catalog import DOCUMENTS, decode_document
from dispatcher.documents import Provider
from dispatcher.http.ports import Catalog
from dispatcher.http.problem import undecodable, unprocessable
from dispatcher.http.providers import check_masks, without_read_only
from dispatcher.http.references import Reference, dangling, references
from dispatcher.rules import check_rules
from dispatcher.template import check_template

#: `(path, message)` of everything wrong.
Errors = list[tuple[str, str]]
ProviderCheck = Callable[[Provider], Errors]


class Keywords(Struct, frozen=True, forbid_unknown_fields=True):
    """One list of words."""

    words: list[Annotated[str, Meta(min_length=1)]]


_keywords: Final = msgspec.json.Decoder(Keywords)


def decode(kind: str, body: bytes) -> Any:
    """The typed document. Raises Problem naming the path."""
    try:
        if kind == "providers":
            body = without_read_only(body)
        return _keywords.decode(body) if kind == "keywords" else decode_document(kind, body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise undecodable(error) from None


async def check(catalog: Catalog, kind: str, document: Any, check_provider: ProviderCheck) -> None:
    """Raises Problem when the document cannot be."""
    errors: Errors = []
    if kind == "templates":
        errors = check_template(document)
    elif kind == "rules":
        errors = check_rules(document)
    elif kind == "providers":
        errors = check_masks(document) or check_provider(document)
    errors = [*errors, *await missing(catalog, references(kind, document))]
    if errors:
        raise unprocessable(errors)


async def missing(catalog: Catalog, wanted: Sequence[Reference]) -> Errors:
    """What is named and does not exist."""
    known = {kind: set(await catalog.list(kind)) for kind in {reference.kind for reference in wanted}}
    return dangling(wanted, known)


async def users_of(catalog: Catalog, kind: str, id_: str) -> Errors:
    """The documents that name this one."""
    found = []
    for other in ("rules", "routes", "templates"):
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
