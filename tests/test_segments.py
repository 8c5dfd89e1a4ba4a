"""SMS segments at their exact ends (3GPP TS 23.038, 23.040)."""

import hypothesis.strategies as st
import pytest
from hypothesis import given

from dispatcher.segments import segments


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", 1), ("x" * 160, 1), ("x" * 161, 2), ("x" * 306, 2), ("x" * 307, 3),
        ("€" * 80, 1), ("€" * 80 + "x", 2), ("中" * 70, 1), ("中" * 71, 2), ("中" * 134, 2), ("中" * 135, 3),
        ("x" * 159 + "中", 3), ("😀" * 35, 1), ("😀" * 36, 2), ("`" * 70, 1), ("`" * 71, 2), ("\n" * 160, 1),
    ],
)  # fmt: skip
def test_ends_of_segments(text: str, expected: int) -> None:
    assert segments(text) == expected


@given(st.text(max_size=400), st.text(max_size=50))
def test_more_text_never_takes_fewer_segments(text: str, more: str) -> None:
    assert 1 <= segments(text) <= segments(text + more)
    assert segments(text + more) <= segments(text + more[::-1] + more) or not more
