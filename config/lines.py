"""Finds the line of a TOML text that gives a path its value, as well as a look at the line starts can tell."""

import re
from collections.abc import Iterator
from typing import Final

_HEADER: Final = re.compile(r"^\s*(?P<open>\[\[?)\s*(?P<name>[^\]]+?)\s*\]")
_KEY: Final = re.compile(r"^\s*(?P<name>(?:[\w-]+|\"[^\"]*\"|'[^']*')(?:\s*\.\s*(?:[\w-]+|\"[^\"]*\"|'[^']*'))*)\s*=")
_PART: Final = re.compile(r"\"([^\"]*)\"|'([^']*)'|([\w-]+)")
_STEP: Final = re.compile(r"\[(\d+)\]|([^.\[\]]+)")
Steps = tuple[str | int, ...]


def line_of(text: str, path: str) -> int | None:
    """The 1-based line of `path` (`rules[2].window_s`), or of the nearest table or key around it."""
    wanted: Steps = tuple(int(index) if index else key for index, key in _STEP.findall(path))
    found, depth = None, 0
    for number, steps in _places(text):
        if len(steps) > depth and wanted[: len(steps)] == steps:
            found, depth = number, len(steps)
    return found


def _places(text: str) -> Iterator[tuple[int, Steps]]:
    table: Steps = ()
    counts: dict[Steps, int] = {}
    quoted = False
    for number, line in enumerate(text.splitlines(), 1):
        inside, quoted = quoted, quoted ^ ((line.count('"""') + line.count("'''")) % 2 == 1)
        if inside:
            continue
        header, key = _HEADER.match(line), _KEY.match(line)
        if header is not None:
            table = _table(_parts(header["name"]), header["open"] == "[[", counts)
            yield number, table
        elif key is not None:
            yield number, table + _parts(key["name"])


def _table(parts: Steps, is_item: bool, counts: dict[Steps, int]) -> Steps:
    """The header's path with the index of every list of tables on its way."""
    path: Steps = ()
    for i, part in enumerate(parts):
        path = (*path, part)
        if is_item and i == len(parts) - 1:
            counts[path] = counts.get(path, 0) + 1
        if path in counts:
            path = (*path, counts[path] - 1)
    return path


def _parts(name: str) -> Steps:
    return tuple(a or b or c for a, b, c in _PART.findall(name))
