"""Valid bodies broken in the ways bodies break: bits flipped, cut short, fields swapped, dropped and doubled, nested
deep, with huge numbers and bytes that are no UTF-8."""

import re
from collections.abc import Sequence
from typing import Any, Final

from hypothesis import strategies as st

#: Strings, words and single bytes, which cut JSON, forms and XML alike.
_TOKENS: Final = re.compile(rb'"(?:[^"\\]|\\.)*"|[\w%+.:-]+|.', re.DOTALL)
#: What stands in place of a token.
ODD: Final = [
    b"null", b"true", b"-1", b"0", b"1e400", b"-0.0", b"1.5e308", b"NaN", b"9" * 19, b"9" * 400, b"9" * 5_000,
    b'""', b'" "', b'"\\u0000"', b'"\\ud800"', b'"\xff"', b'"\xc2\xb2"', b'"9e9"', b'"' + b"9" * 5_000 + b'"',
    b'"' + b"x" * 5_000 + b'"', b'"0001-01-01T00:00:00"', b'"9999-12-31T23:59:59-23:59"', b'"+"', b'"\\ud83d\\ude00"',
    b"[]", b"{}", b"[" * 2_000 + b"]" * 2_000, b'{"a":' * 2_000 + b"0" + b"}" * 2_000, b"[[[[1]]]]",
    b"", b"%", b"%00", b"%FF", b"%ED%A0%80", b"&", b"=", b"&a=1" * 300, b"+" * 40, b"\xed\xa0\x80", b"\xff\xfe",
    b"<a>", b"<a>" * 500 + b"</a>" * 500, b"]]>", b"&#0;", b"&b;", b"<![CDATA[", b"<!DOCTYPE a>", b"\xef\xbb\xbf",
    b"\xd9\xa3\xd9\xa4",
]  # fmt: skip
_NAMES: Final = ("odd", "odd", "odd", "swap", "swap", "drop", "double", "flip", "cut", "lose", "bytes")
_place: Final = st.integers(0, 1 << 20)
_changes: Final = st.lists(
    st.tuples(st.sampled_from(_NAMES), _place, _place, st.sampled_from(ODD) | st.binary(max_size=6)), max_size=4
)


def mutated(samples: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    """One of these, as it is or after a few changes."""
    return st.builds(_changed, st.sampled_from(samples), _changes) | st.binary(max_size=64)


def _changed(body: bytes, changes: list[Any]) -> bytes:
    for name, a, b, odd in changes:
        if not body:
            break
        body = _by_bytes(body, name, a, b, odd) if name in ("flip", "cut", "lose", "bytes") else _by_tokens(
            body, name, a, b, odd
        )
    return body


def _by_bytes(body: bytes, name: str, a: int, b: int, odd: bytes) -> bytes:
    at = a % len(body)
    if name == "flip":
        return body[:at] + bytes([body[at] ^ 1 << b % 8]) + body[at + 1 :]
    if name == "bytes":
        return body[:at] + odd + body[at:]
    return body[:at] + (body[at + 1 + b % 9 :] if name == "lose" else b"")


def _by_tokens(body: bytes, name: str, a: int, b: int, odd: bytes) -> bytes:
    tokens = _TOKENS.findall(body)
    fields = [place for place, token in enumerate(tokens) if len(token) > 1] or list(range(len(tokens)))
    one, other = fields[a % len(fields)], fields[b % len(fields)]
    if name == "odd":
        tokens[one] = odd
    elif name == "swap":
        tokens[one], tokens[other] = tokens[other], tokens[one]
    elif name == "drop":
        del tokens[one]
    else:
        first, last = sorted((one, other))
        tokens[last:last] = tokens[first:last]
    return b"".join(tokens)[: 1 << 17]
