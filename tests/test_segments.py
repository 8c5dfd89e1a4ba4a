"""SMS segments: their exact ends (3GPP TS 23.038, 23.040), the rows of `wire.md`, and the oracle smsutil."""

from itertools import pairwise

import hypothesis.strategies as st
import pytest
import smsutil
from hypothesis import given

from dispatcher.segments import BASIC, EXTENDED, billed, is_gsm, segments, split, units

#: Texts that lie near the ends of parts; no escape, which smsutil takes for a character.
_gsm = st.text(BASIC.replace("\x1b", "") + "".join(EXTENDED), max_size=24)
_char = st.sampled_from("中文短信，é😀𠀀a€") | st.characters(exclude_characters="\x1b", codec="utf-16")
_wide = st.text(_char, max_size=12)
_filler = st.builds(str.__mul__, st.sampled_from(["", "a", "€", "中", "😀", "ab|", "中😀"]), st.integers(0, 160))
texts = st.builds("".join, st.lists(_gsm | _wide | _filler, max_size=5))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", 1), ("x" * 160, 1), ("x" * 161, 2), ("x" * 306, 2), ("x" * 307, 3),
        ("€" * 80, 1), ("€" * 80 + "x", 2), ("中" * 70, 1), ("中" * 71, 2), ("中" * 134, 2), ("中" * 135, 3),
        ("x" * 159 + "中", 3), ("😀" * 35, 1), ("😀" * 36, 2), ("`" * 70, 1), ("`" * 71, 2), ("\n" * 160, 1),
        ("a" * 152 + "€" + "a" * 20, 2), ("ç", 1), ("ò^{}", 1), ("\x1b" * 71, 2),
        # A pair that stands across an end opens the next part.
        ("€" * 153, 3), ("€" * 152, 2), ("a" + "€" * 152, 2), ("😀" * 66, 2), ("😀" * 67, 3),
        ("a" * 152 + "€" + "a" * 152, 3), ("中" * 66 + "😀" + "中" * 66, 3),
    ],
)  # fmt: skip
def test_ends_of_segments(text: str, expected: int) -> None:
    assert segments(text) == len(split(text)) == expected


@pytest.mark.parametrize(
    ("length", "signature", "expected"),
    [(70, None, 1), (71, None, 2), (134, None, 2), (135, None, 3), (160, None, 3), (66, "示例", 1), (67, "示例", 2),
     (130, "示例", 2), (131, "示例", 3), (498, None, 8)],
)  # fmt: skip
@pytest.mark.parametrize("char", "a1中，€")
def test_mainland_counts_every_character_and_the_signature(
    length: int, signature: str | None, expected: int, char: str
) -> None:
    assert billed(char * length, signature, "CN") == expected


def test_abroad_the_signature_is_in_square_brackets() -> None:
    assert billed("x" * 152, "Acme", "US") == 1  # the brackets are two septets each
    assert billed("x" * 153, "Acme", "US") == 2
    assert billed("x" * 64, "示例", "US") == 1
    assert billed("x" * 67, "示例", "US") == 2


@given(st.text(max_size=400), st.text(max_size=50))
def test_more_text_never_takes_fewer_segments(text: str, more: str) -> None:
    assert 1 <= segments(text) <= segments(text + more)
    assert segments(text + more) <= segments(text + more[::-1] + more) or not more


@given(texts)
def test_smsutil_agrees(text: str) -> None:
    parts = [part.content for part in smsutil.split(text).parts] if text else [""]
    assert segments(text) == len(parts)
    assert split(text) == parts


@given(texts, st.sampled_from([1, 2]))
def test_parts_are_whole_and_full(text: str, reference_bytes: int) -> None:
    parts = split(text, reference_bytes)
    assert "".join(parts) == text
    gsm = is_gsm(text)
    most = (153 if gsm else 67) - (reference_bytes - 1)

    def length(part: str) -> int:
        return sum(1 + (c in EXTENDED) for c in part) if gsm else units(part)

    if len(parts) == 1:
        assert length(text) <= (160 if gsm else 70)
    for part, following in pairwise(parts):
        assert length(part) <= most < length(part + following[0])
