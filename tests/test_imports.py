"""Import rules that import-linter cannot express: it sees packages from outside only as a whole."""

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parent.parent
PACKAGES: Final = ("dispatcher", "actors", "channels", "config", "bench")
#: The composition root.
RAY_FILES: Final = {Path("actors/root.py")}


def sources(*packages: str) -> Iterator[tuple[Path, ast.Module]]:
    """Every module of these packages, by its path in the project."""
    for package in packages:
        for path in sorted((ROOT / package).rglob("*.py")):
            yield path.relative_to(ROOT), ast.parse(path.read_text(encoding="utf-8"), str(path))


def imported(tree: ast.Module) -> Iterator[str]:
    """Every name the module imports, dotted, those inside functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def importers(module: str, *packages: str) -> set[Path]:
    """The files that import `module` or something in it."""
    return {
        path
        for path, tree in sources(*packages)
        if any(name == module or name.startswith(f"{module}.") for name in imported(tree))
    }


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_resolve_inside_the_project(package: str) -> None:
    """Names like `config` are common; another distribution's must not come first."""
    assert Path(str(importlib.import_module(package).__file__)) == ROOT / package / "__init__.py"


def test_only_dispatcher_http_serves_with_aiohttp() -> None:
    assert {path.parts[:2] for path in importers("aiohttp.web", *PACKAGES)} <= {("dispatcher", "http")}


def test_only_the_composition_root_imports_ray() -> None:
    assert importers("ray", *PACKAGES) <= RAY_FILES


def test_only_the_store_imports_redis() -> None:
    assert {path.parts[:2] for path in importers("redis", *PACKAGES)} <= {("dispatcher", "store")}


def test_nothing_reads_the_environment_when_imported() -> None:
    """`os.environ` stands inside functions only."""
    early = [
        f"{path}:{node.lineno}"
        for path, tree in sources(*PACKAGES)
        for statement in tree.body
        if not isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.If)
        for node in ast.walk(statement)
        if isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv")
    ]
    assert early == []


def test_no_module_is_named_by_a_word_that_says_nothing() -> None:
    empty_words = ("manager", "helper", "util", "utils", "base", "impl", "common", "misc")
    assert [str(path) for path, _ in sources(*PACKAGES) if path.stem in empty_words] == []
