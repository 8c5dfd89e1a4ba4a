"""The documentation against the code: links, targets, metrics, keys, tests and examples are what they say."""

import ast
import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from xml.etree import ElementTree as xml

import msgspec
import pytest

from actors.tally import COUNTERS, GAUGES, HISTOGRAMS
from config.schema import Config
from dispatcher.catalog import DOCUMENTS, LIST_ID, decode_document
from dispatcher.documents import User
from dispatcher.http.wire import StreamSummary, TriggerResult
from dispatcher.trigger import Trigger

ROOT: Final = Path(__file__).resolve().parent.parent
README: Final = ROOT / "README.md"
PAGES: Final = [README, ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE: Final = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SPAN: Final = re.compile(r"`([^`\n]+)`")
LINK: Final = re.compile(r"\]\(([^)\s]+)\)")
EXPOSED: Final = {
    **{f"{name}_total": name for name in COUNTERS},
    **{name: name for name in (*GAUGES, *HISTOGRAMS)},
    **{f"{name}_{part}": name for name in HISTOGRAMS for part in ("bucket", "count", "sum")},
}

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of one language."""
    return [text for named, text in FENCE.findall(page.read_text()) if named == language]


def prose(page: Path) -> str:
    """The page without its fenced blocks."""
    return FENCE.sub("", page.read_text())


def code(page: Path) -> str:
    """Everything on the page that is set as code."""
    return "\n".join([*(text for _, text in FENCE.findall(page.read_text())), *SPAN.findall(prose(page))])


def anchors(page: Path) -> set[str]:
    """Where a link into the page can lead, as GitHub names headings."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def keys(of: Any = Config, prefix: str = "") -> Iterator[str]:
    """Every key of the configuration and every section, dotted."""
    for field in msgspec.structs.fields(of):
        yield prefix + field.name
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            yield from keys(field.type, f"{prefix}{field.name}.")


def shell_json(command: str) -> list[Any]:
    """The JSON bodies of `-d '...'` in a shell block."""
    return [json.loads(body) for body in re.findall(r"-d '(.*?)'", command, re.DOTALL)]


@pages
def test_relative_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(prose(page)):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), target
        assert there.is_relative_to(ROOT), target
        if anchor:
            assert anchor in anchors(there), target


@pages
def test_make_targets_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z-]+)", code(page))) <= targets


@pages
def test_metrics_exist(page: Path) -> None:
    assert set(re.findall(r"\bdispatcher_[a-z_]+", page.read_text())) <= EXPOSED.keys()


def test_every_metric_is_explained() -> None:
    named = re.findall(r"\bdispatcher_[a-z_]+", (ROOT / "docs/operations.md").read_text())
    assert {EXPOSED[name] for name in named} == set(EXPOSED.values())


@pages
def test_configuration_keys_exist(page: Path) -> None:
    known = set(keys())
    sections = {key.partition(".")[0] for key in known if "." in key}
    for span in SPAN.findall(prose(page)):
        if re.fullmatch(r"[a-z_]+\.[a-z_]+", span) and span.partition(".")[0] in sections:
            assert span in known, span
    for variable in re.findall(r"\bDISPATCHER__([A-Z_]+)=", page.read_text()):
        assert variable.lower().replace("__", ".") in known, variable


def test_the_runbooks_table_names_keys() -> None:
    text = (ROOT / "docs/operations.md").read_text()
    table = text.partition("| to decide | key |")[2].partition("\n\n")[0]
    named = SPAN.findall(table)
    assert named
    assert set(named) <= set(keys())


@pages
def test_files_and_tests_named_exist(page: Path) -> None:
    for span in SPAN.findall(prose(page)):
        path, _, test = span.partition("::")
        if not re.fullmatch(r"(actors|bench|channels|config|dispatcher|docs|tests)/[\w./]+", path):
            continue
        assert (ROOT / path).exists(), span
        if test:
            assert f"def {test}(" in (ROOT / path).read_text(), span


def test_every_invariant_is_enforced_and_proved() -> None:
    table = (ROOT / "docs/architecture.md").read_text().partition("## What always holds")[2]
    rows = [row.split(" | ") for row in table.splitlines() if re.match(r"\| \d", row)]
    assert [row[0] for row in rows] == [f"| {n}" for n in range(1, 9)]
    for row in rows:
        assert SPAN.findall(row[2]) or "table above" in row[2]
        assert "::test_" in row[3]


def test_the_examples_documents_are_sound() -> None:
    kinds = set()
    for kind, id_, body in re.findall(
        r"-X PUT localhost:8080/v1/(\w+)(?:/([\w-]+))? -d '(.*?)'", "".join(blocks(README, "bash")), re.DOTALL
    ):
        kinds.add(kind)
        if kind == "users":
            msgspec.json.decode(body, type=User)
        else:
            decode_document(kind, body.encode())
            assert bool(id_) != (kind in ("rules", "routes")), f"{kind} are {LIST_ID} or by id"
    assert kinds == {"templates", "lines", "providers", "routes", "users"}
    assert kinds - {"users"} <= DOCUMENTS.keys()


def test_the_examples_triggers_are_triggers() -> None:
    commands = "".join(blocks(README, "bash"))
    posted = re.findall(r"curl localhost:8080/v1/triggers (.*?\}')", commands, re.DOTALL)
    assert [msgspec.convert(body, Trigger).id for text in posted for body in shell_json(text)] == ["pay-1"]
    [line] = re.findall(r"echo '(.*)'$", commands, re.MULTILINE)
    assert msgspec.json.decode(line.replace("'$n'", "7"), type=Trigger).params["amount"] == 7


def test_the_examples_answers_are_answers() -> None:
    lines = [line for block in blocks(README, "json") for line in block.splitlines()]
    answers = [msgspec.json.decode(line, type=TriggerResult) for line in lines if not line.startswith('{"summary"')]
    [summary] = [msgspec.json.decode(line, type=StreamSummary).summary for line in lines if line.startswith('{"summ')]
    statuses = [answer.status for answer in answers[1:]]
    assert len(statuses) == summary.total
    assert {status: statuses.count(status) for status in set(statuses)} == {
        name: n for name, n in msgspec.to_builtins(summary).items() if isinstance(n, int) and n and name != "total"
    }


@pages
def test_python_in_it_is_python(page: Path) -> None:
    for block in blocks(page, "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom):
                assert node.module is not None
                module = __import__(node.module, fromlist=["_"])
                assert all(hasattr(module, alias.name) for alias in node.names)


def test_every_direct_dependency_is_in_the_decisions() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    locked = dict(re.findall(r"^([\w-]+)==(\S+)", (ROOT / "requirements/dev.txt").read_text(), re.MULTILINE))
    decisions = (ROOT / "docs/decisions.md").read_text()
    table = dict(re.findall(r"^\| ([\w-]+) \| [^|]+ \| (\d[\w.]*) \|", decisions, re.MULTILINE))
    names = [re.split(r"[>=<]", requirement)[0] for requirement in wanted]
    assert table == {name: locked[name] for name in names}


def test_pictures_are_whole_and_described() -> None:
    pictures = sorted((ROOT / "docs").glob("*.svg"))
    assert pictures
    for picture in pictures:
        root = xml.parse(picture).getroot()
        assert root.findtext("{http://www.w3.org/2000/svg}title")
        assert root.findtext("{http://www.w3.org/2000/svg}desc")
        shown = re.compile(r"!\[.{40,}\]\((docs/)?" + re.escape(picture.name) + r"\)")
        assert any(shown.search(page.read_text()) for page in PAGES), picture.name
