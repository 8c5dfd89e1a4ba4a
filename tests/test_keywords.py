"""Keywords: what evades them not, where they are found, and that the quick ways give what the definition gives."""

import random
import sys
from typing import Any, Final

import hypothesis.strategies as st
import pytest
from hypothesis import example, given

from dispatcher.fold import bare, clusters, fold, fold_by_definition, is_sign, suspects
from dispatcher.keywords import Hit, Texts, WordList, check_words, leaves
from dispatcher.simplified import SIMPLIFIED, TRADITIONAL
from tests import generate_simplified

#: What is likely to go wrong: letters in all widths and cases, what joins, what vanishes, what expands, what is a sign.
NASTY: Final = (
    "abAB ab_.-，。【】：·\u200b\u200d\u200c\ufeff\u00ad\u0301\u0308\u0327\u0345\u3099\u309a\ufe0f\u20e3ａＢ｡ｶﾞﾞかが"
    "ßẞİıſﬁﬃǅΐςσΣÅÅéẹ́℃™№㎏㈱ⓐⒶ①Ⅷ½²ªºK￥¥$+＋=~<\u0338`^|￣ ­\u3164\u115f\u1160\u1100\u1161\u11a8가각ㄱㅏ한글ﾡￂ"
    "賭博赌驗验證证碼码發发髮薴苧苎著着乾干更豈岂龜🎰💊👨\u200d👩𝐚𝒃𝟗🄰𠮷丽\U000e0061Ꭰꭰ\u0e33กิ\u0915\u093f\u09c7\u09be\ud800\udfff\n\t\x00"
)
texts = st.text(st.one_of(st.sampled_from(NASTY), st.sampled_from("ab赌博码"), st.characters()), max_size=24)
words = st.lists(st.text(st.sampled_from("ab赌博码+🎰éか각"), min_size=1, max_size=4), max_size=8)
near = st.text(st.one_of(st.sampled_from("ab赌博码+🎰éか각"), st.sampled_from(NASTY)), max_size=24)


def naive(listed: list[str], fields: dict[str, Any]) -> tuple[str, str, int] | None:
    """By the definition: the folded word, the field, and the place in the folded field."""
    folded = {fold_by_definition(word) for word in listed} - {""}
    for path, text in leaves(fields):
        whole = fold_by_definition(text)
        found = [(whole.find(word), -len(word), word) for word in folded if word in whole]
        if found:
            at, _, word = min(found)
            return word, path, at
    return None


def only(word: str, text: str) -> Hit | None:
    return WordList("default", [word]).find({"text": text})


@pytest.mark.parametrize(
    ("word", "text", "at"),
    [
        ("赌博", "网上赌博", 2),
        ("赌博", "网上賭博", 2),  # traditional
        ("賭博", "网上赌博", 2),  # listed so
        ("casino", "a CASINO", 2),
        ("casino", "a ｃａｓｉｎｏ", 2),  # full width
        ("CASINO", "a Ｃasi\u200bno", 2),  # zero width
        ("casino", "c a s i n o", 0),
        ("casino", "【】c.a-s_i，n。o", 2),
        ("赌博", "赌\u200d\ufeff博", 0),
        ("赌博", "赌\u0336博", 0),  # combining
        ("casino", "c\u0336a\u0336s\u0336i\u0336n\u0336o\u0336", 0),
        ("赌 博。", "远离赌博", 2),  # separators in the list
        ("a_b", "xAB", 1),
        ("strasse", "STRAßE", 0),
        ("file", "oﬁle", 1),  # ligature
        ("istanbul", "İstanbul", 0),
        ("éa", "xe\u0301a", 1),  # decomposed
        ("각하", "\u1100\u200b\u1161\u11a8하", 0),  # Hangul in parts, one of them behind a zero width space
        ("a+v", "加A ＋ V", 1),
        ("🎰", "来玩🎰吧", 2),
        ("vx9", "𝐯𝐱𝟗", 0),
        ("株", "a㈱", 1),
    ],
)
def test_no_disguise_helps(word: str, text: str, at: int) -> None:
    assert only(word, text) == Hit(word, "text", at)


@pytest.mark.parametrize(
    ("word", "text"),
    [("赌博", "赌一博"), ("casino", "casin"), ("a+v", "av"), ("av", "a+v"), ("🎰", "🎲"), ("赌博", ""), ("é", "e")],
)
def test_no_word_no_hit(word: str, text: str) -> None:
    assert only(word, text) is None


def test_each_field_is_matched_alone() -> None:
    found = WordList("default", ["赌博", "ab"])
    assert found.find({"title": "远离赌", "body": "博士"}) is None
    assert found.find({"title": "远离赌", "body": "a", "jump": "b"}) is None
    assert found.find({"title": "a", "body": "xxA-B"}) == Hit("ab", "body", 2)


def test_nested_fields_are_named_by_their_path() -> None:
    found = WordList("default", ["赌博"])
    wechat = {"template_id": "t", "data": {"keyword1": {"value": "好"}, "keyword2": {"value": "賭 博"}}, "url": None}
    assert found.find(wechat) == Hit("赌博", "data.keyword2.value", 0)
    assert found.find({"body": {"items": ["x", 5, {"name": "来赌博"}], "赌博": True}}) == Hit(
        "赌博", "body.items[2].name", 1
    )
    assert found.find({"body": {"赌博": [1, None, "赌", "博"]}}) is None


def test_the_leftmost_and_then_the_longest_is_reported_as_first_listed() -> None:
    found = WordList("default", ["码", "b", "B C D", "bcd", "bc", "cde"])
    assert len(found) == 5
    assert found.find({"text": "a.b.c.d.e码"}) == Hit("B C D", "text", 2)


def test_a_list_may_be_empty() -> None:
    assert WordList("default", []).find({"text": "赌博＋🎰"}) is None
    assert WordList("default", ["..", "\u200b"]).find({"text": "..."}) is None


def test_a_word_that_folds_to_nothing_is_reported() -> None:
    assert check_words(["赌博", " 。_", "+", "\u200b"]) == [
        ("words[1]", "' 。_' has nothing but separators"),
        ("words[3]", "'\\u200b' has nothing but separators"),
    ]


@given(words, st.dictionaries(st.sampled_from(["text", "title"]), near))
@example(["ab"], {"text": "a", "title": "b"})
@example(["a+b", "ab"], {"text": "a+b"})
@example(["+"], {"text": "＋"})
@example(["각"], {"text": "가\u11a8"})
def test_finds_what_a_plain_reading_finds(listed: list[str], fields: dict[str, str]) -> None:
    hit, expected = WordList("default", listed).find(fields), naive(listed, fields)
    assert (hit is None) == (expected is None)
    if hit is not None and expected is not None:
        word, path, at = expected
        assert fold_by_definition(hit.word) == word
        assert listed.index(hit.word) == [fold_by_definition(other) for other in listed].index(word)
        assert hit.field == path
        # The place in the field: what stands before it folds to what stands before the word, and it gives the next.
        text = fields[path]
        before = [len(folded) for index, folded in clusters(text) if index < hit.at]
        through = [len(folded) for index, folded in clusters(text) if index <= hit.at]
        assert sum(before) <= at < sum(through)


@given(texts)
@example("a\u200d\u0301")
@example("\u1100\u200b\u1161")
@example("가\u11a8")
@example("ΐ")
def test_the_quick_folding_is_the_definition(text: str) -> None:
    folded = fold_by_definition(text)
    assert fold(text) == folded
    assert fold_by_definition(folded) == folded
    pieces = clusters(text)
    assert "".join(piece for _, piece in pieces) == folded
    assert sorted({index for index, _ in pieces}) == [index for index, _ in pieces]


@given(texts, st.frozensets(st.sampled_from("+¥🎰Ꭰ℃a"), max_size=3))
def test_a_text_without_suspects_is_as_bare_as_its_folding(text: str, signs: frozenset[str]) -> None:
    if not suspects(signs)(text):
        folded = fold_by_definition(text)
        assert bare(text) == bare(folded)
        assert signs.isdisjoint(folded)
        assert bare(folded) == "".join(char for char in folded if not is_sign(char))


def test_every_character_there_is() -> None:
    """What `fold` and `bare` take for granted of single characters, with this Python's Unicode and this rapidfuzz."""
    suspected = suspects()
    for char in map(chr, range(sys.maxunicode + 1)):
        folded = fold_by_definition(char)
        assert fold(char) == folded, ascii(char)
        if folded != char:  # else there is nothing to lose
            assert fold_by_definition(folded) == folded, ascii(char)
            assert suspected(char) or bare(char) == bare(folded), ascii(char)
            assert clusters(char) in ([(0, folded)], []), ascii(char)


def test_the_table_is_that_of_opencc() -> None:
    assert dict(zip(TRADITIONAL, SIMPLIFIED, strict=True)) == generate_simplified.table()
    assert not set(TRADITIONAL) & set(SIMPLIFIED)
    assert generate_simplified.TARGET.read_text() == generate_simplified.module()


@given(st.lists(texts))
def test_texts_are_the_strings_they_were(strings: list[str]) -> None:
    assert list(Texts.from_parts(*Texts.of(strings).parts())) == strings


def test_a_list_of_200_000_words(rng: random.Random) -> None:
    """Built in its own process; every word is found, disguised and where it stands, and in other texts none."""
    ideographs = [chr(code) for code in range(0x4E00, 0x9FA6) if chr(code) not in TRADITIONAL]
    said, unsaid = ideographs[::2], "".join(ideographs[1::2])
    listed = list(dict.fromkeys("".join(rng.choices(said, k=rng.randint(3, 6))) for _ in range(201_000)))[:200_000]
    found = WordList("default", listed)
    assert len(found) == 200_000
    for word in rng.sample(listed, 500):
        text = unsaid[:20] + "，\u200b".join(word)
        assert found.find({"text": text}) == Hit(word, "text", 20)
    for _ in range(500):
        assert found.find({"text": "".join(rng.choices(unsaid, k=70))}) is None


@pytest.mark.parametrize("executable", ["/bin/false", "/nowhere/python"])
def test_a_list_takes_effect_where_no_process_can_be_had(monkeypatch: pytest.MonkeyPatch, executable: str) -> None:
    monkeypatch.setattr("dispatcher.keywords.sys.executable", executable)
    words = WordList("default", [f"word{n}" for n in range(10_000)])
    assert words.find({"text": "say W-O-R-D-7777!"}) == Hit("word7777", "text", 4)
