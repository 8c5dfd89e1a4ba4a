"""The text that is not UTF-8 is found wherever it stands, in both forms of a document."""

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.utf8 import MOST_LEVELS, not_utf8

MARK = "\N{WHITE SMILING FACE}"  # three bytes; without its last one it is not UTF-8
SPOILT = MARK.encode()[:2] + b" "

name = st.text(st.characters(codec="ascii", categories=("Ll",)), min_size=1, max_size=5)
leaf = st.none() | st.integers(0, 99) | name
trees = st.recursive(leaf, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(name, inner, max_size=4))


def places(tree: Any, path: str = "") -> list[tuple[str, Any, Any]]:
    """Every place where a text could stand: its path, what holds it, and its name there."""
    if not isinstance(tree, dict | list):
        return []
    found = []
    for key, value in list(tree.items() if isinstance(tree, dict) else enumerate(tree)):
        at = f"[{key}]" if isinstance(tree, list) else f".{key}"
        whole = (path + at).removeprefix(".")
        found += [(whole, tree, key), *places(value, whole)]
    return found


def depth(path: str) -> int:
    return path.count("[") + path.count(".") + (not path.startswith("["))


@given(tree=trees.filter(lambda tree: bool(places(tree))), data=st.data(), msgpack=st.booleans())
def test_the_place_is_named(tree: Any, data: st.DataObject, msgpack: bool) -> None:
    path, holder, key = data.draw(st.sampled_from(places(tree)))
    holder[key] = f"x{MARK}"
    encode = msgspec.msgpack.encode if msgpack else msgspec.json.encode
    document = encode(tree)
    assert not_utf8(document, msgpack) is None
    found = not_utf8(document.replace(MARK.encode(), SPOILT), msgpack)
    assert found is not None
    said_path, what = found
    if depth(path) <= MOST_LEVELS:
        assert said_path == path
        assert what == "not UTF-8 (invalid continuation byte at byte 1 of it)"
    else:
        assert path.startswith(said_path)


def test_a_document_that_is_one_text_or_none() -> None:
    assert not_utf8(b'"a\xff"') == ("", "not UTF-8 (invalid start byte at byte 1 of it)")
    assert not_utf8(b"\xff") is None, "no text stands there"
    assert not_utf8(b'{"a":') is None


def test_a_name_is_told_by_what_holds_it() -> None:
    assert not_utf8(b'{"a":{"b\xff":1}}') == ("a", "a name in it is not UTF-8 (invalid start byte at byte 1 of it)")


def test_below_some_levels_the_part_is_named() -> None:
    deep = b'{"a":' * 12 + b'"\xff"' + b"}" * 12
    found = not_utf8(deep)
    assert found is not None
    assert found[0] == ".".join("a" * MOST_LEVELS)
