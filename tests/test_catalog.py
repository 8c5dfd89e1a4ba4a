"""The catalog in memory: what follows changes, and what is passed over."""

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import given

from dispatcher import catalog as module
from dispatcher.catalog import DOCUMENTS, KINDS_OF, Catalog, prepare
from dispatcher.edit import Change, Edit, Prepared
from dispatcher.keywords import WordList

LINE = b'{"name":"x"}'


def test_every_kind_is_somebodys() -> None:
    assert {kind for kinds in KINDS_OF.values() for kind in kinds} == DOCUMENTS.keys()


def test_changes_seen_already_are_passed_over_and_others_move_the_version() -> None:
    catalog = Catalog()
    heard: list[str] = []
    catalog.on_change.append(heard.append)
    catalog.follow(Change(3, "lines", [Edit("a", LINE), Edit("b", LINE)]))
    catalog.follow(Change(3, "lines", [Edit("a", None)]))
    catalog.follow(Change(2, "lines", [Edit("a", None)]))
    catalog.follow(Change(4, "providers", ()))
    assert (sorted(catalog.lines), catalog.version, heard) == (["a", "b", "default"], 4, ["lines"])


def test_a_reader_keeps_what_it_took() -> None:
    catalog = Catalog()
    catalog.apply(1, "lines", "a", LINE)
    taken = catalog.lines
    catalog.apply(2, "lines", "a", None)
    assert ("a" in taken, "a" in catalog.lines) == (True, False)


@pytest.mark.parametrize(
    ("kind", "bad"),
    [
        ("lines", b"{"), ("lines", b'{"nam":1}'), ("keywords", b'{"words":[""]}'), ("keywords", b'{"words":["a",7]}'),
        ("templates", b'{"type":"notice","channels":[{"channel":"sms","text":"{"}]}'), ("blacklist", b'{"user":7}'),
    ],
)  # fmt: skip
def test_what_means_nothing_changes_nothing(kind: str, bad: bytes) -> None:
    catalog = Catalog()
    assert prepare(kind, "a", bad) is None
    catalog.apply(1, kind, "a", bad)
    catalog.apply(2, "of the future", "a", LINE)
    assert (catalog.templates, catalog.keywords, len(catalog.blacklist)) == ({}, {}, 0)
    assert (list(catalog.lines), catalog.version) == (["default"], 2)


def test_one_entry_that_means_nothing_costs_only_itself() -> None:
    catalog = Catalog()
    docs = [b'{"user":"u1"}', b'{"user":7}', b'{"address":"a1"}', b"\n{"]
    catalog.follow(Change(1, "blacklist", [Edit(str(n), doc) for n, doc in enumerate(docs)]))
    assert [len(catalog.blacklist.ids("u1", None)), len(catalog.blacklist.ids(None, "a1"))] == [1, 1]
    catalog.follow(Change(2, "blacklist", [Edit("0", None, docs[0]), Edit("9", None, docs[1]), Edit("8", None, None)]))
    assert [len(catalog.blacklist.ids("u1", None)), len(catalog.blacklist.ids(None, "a1"))] == [0, 1]


def test_what_was_made_ready_is_used_as_it_is() -> None:
    catalog = Catalog()
    words = WordList("default", ["lottery"])
    catalog.follow(Change(1, "keywords", [Edit("default", Prepared(words))]))
    assert catalog.keywords == {"default": words}
    fresh = Catalog()
    fresh.fill("keywords", [Edit("other", b'{"words":[]}')])
    fresh.version = 7
    catalog.become(fresh)
    assert (list(catalog.keywords), catalog.version) == (["other"], 7)


odd_words = st.lists(st.text(st.sampled_from('a",\\ 词]}[{\n\u2028\U0001f600'), min_size=1), max_size=30)


@given(odd_words, st.integers(0, 40))
def test_words_are_decoded_slice_by_slice_as_at_one_go(words: list[str], slice_bytes: int) -> None:
    before, module.SLICE_BYTES = module.SLICE_BYTES, slice_bytes  # type: ignore[misc]
    try:
        assert module._words(msgspec.json.encode({"words": words})) == words
        spaced = msgspec.json.format(msgspec.json.encode({"words": words}), indent=2)
        assert module._words(spaced) == words
    finally:
        module.SLICE_BYTES = before  # type: ignore[misc]
