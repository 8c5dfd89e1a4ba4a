"""What the catalog's documents name of each other. Pure."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from dispatcher.catalog import DEFAULT_LINE
from dispatcher.documents import BlacklistEntry, Provider, Route, Template
from dispatcher.rules import Rule


class Reference(NamedTuple):
    """`path` of a document names the document `id` of `kind`."""

    path: str
    kind: str
    id: str


def references(kind: str, document: Any) -> list[Reference]:
    """Everything this document names."""
    if kind == "routes":
        return [reference for i, route in enumerate(document) for reference in _of_route(f"[{i}]", route)]
    if kind == "rules":
        return [reference for i, rule in enumerate(document) for reference in _of_rule(f"[{i}]", rule)]
    if isinstance(document, Provider) and document.unsubscribe_answer is not None:
        answer = document.unsubscribe_answer
        return [
            Reference("unsubscribe_answer.template", "templates", answer.template),
            Reference("unsubscribe_answer.line", "lines", answer.line),
        ]
    if isinstance(document, Template | BlacklistEntry) and document.line is not None:
        return [Reference("line", "lines", document.line)]
    return []


def _of_route(path: str, route: Route) -> list[Reference]:
    return [
        *[Reference(f"{path}.providers[{i}].id", "providers", p.id) for i, p in enumerate(route.providers)],
        *_each(f"{path}.match.lines", "lines", route.match.lines),
        *_each(f"{path}.match.templates", "templates", route.match.templates),
    ]


def _of_rule(path: str, rule: Rule) -> list[Reference]:
    found = [*_each(f"{path}.lines", "lines", rule.lines), *_each(f"{path}.templates", "templates", rule.templates)]
    words = getattr(rule, "list", None)
    return [*found, Reference(f"{path}.list", "keywords", words)] if isinstance(words, str) else found


def _each(path: str, kind: str, ids: Sequence[str]) -> list[Reference]:
    return [Reference(f"{path}[{i}]", kind, id_) for i, id_ in enumerate(ids)]


def dangling(wanted: Iterable[Reference], known: dict[str, set[str]]) -> list[tuple[str, str]]:
    """`(path, message)` of each reference to what does not exist; `known`: the ids there are, by kind."""
    errors = []
    for path, kind, id_ in wanted:
        if id_ not in known.get(kind, set()) and (kind, id_) != ("lines", DEFAULT_LINE):
            errors.append((path, f"there is no {noun(kind)} {id_!r}"))
    return errors


def noun(kind: str) -> str:
    """What one document of a kind is called."""
    return "keyword list" if kind == "keywords" else kind.removesuffix("s")
