"""One spelling for many: what keywords compare, so that a text cannot evade a word by writing it differently.

Folded is: NFKC, case folded, traditional characters made simplified (one by one, `dispatcher.simplified`), and freed of
separators: Unicode Z*, P* (so `_` too), Cc, Cf and Mn; lone surrogates, which are no characters, go with them.
`fold_by_definition` says just this. `fold` is its equal, faster where it can be. `bare` is faster still, and coarser.

All of it stands on which characters *join*, that is may compose with the one before or change places with it. Every
other character is folded by itself, whatever stands around it: a composition needs a starter and a later character that
composes backwards, a reordering one that is no starter (Unicode Standard Annex 15, "Detecting Normalization Forms").
"""

import re
from collections.abc import Callable, Set
from functools import cache, lru_cache
from itertools import chain
from typing import Final, NamedTuple
from unicodedata import category, combining, decomposition, normalize

from rapidfuzz.utils import default_process

from dispatcher.simplified import SIMPLIFIED, TRADITIONAL

_SIMPLE: Final = {ord(a): b for a, b in zip(TRADITIONAL, SIMPLIFIED, strict=True)}
_SEPARATORS: Final = frozenset({"Cc", "Cf", "Cs", "Mn", "Zl", "Zp", "Zs", "Pc", "Pd", "Pe", "Pf", "Pi", "Po", "Ps"})
#: Where no character changes or joins, but for the keys of the table: ideographs, Hangul syllables, private use,
#: Tangut, and the planes that hold only ideographs or nothing. A test looks at every character there is.
_PLAIN: Final = ((0x3400, 0xA000), (0xAC00, 0xD7A4), (0xE000, 0xF900), (0x17000, 0x1AFF0), (0x20000, 0x2F800),
                 (0x2FA20, 0xE0000), (0xE1000, 0x110000))  # fmt: skip
#: Where beyond the basic plane characters may join: in scripts and musical notes, and among tags; not emoji.
_JOINING_BEYOND: Final = ((0x10000, 0x1F000), (0xE0000, 0xE1000))

Search = Callable[[str], re.Match[str] | None]


def fold_by_definition(text: str) -> str:
    """The text folded again and again until nothing changes: what a removed separator kept apart may compose now."""
    while (folded := _fold_once(text)) != text:
        text = folded
    return text


def _fold_once(text: str) -> str:
    text = normalize("NFKC", text).casefold().translate(_SIMPLE)
    return "".join([char for char in text if category(char) not in _SEPARATORS])


class _Folded(dict[int, str]):
    """What each character folds to, worked out when it is first met."""

    def __missing__(self, code: int) -> str:
        folded = self[code] = fold_by_definition(chr(code))
        return folded


_folded: Final = _Folded()


def fold(text: str) -> str:
    """Equals `fold_by_definition(text)`; 0.08 us a character, four times that where one joins."""
    return fold_by_definition(text) if _characters().joins(text) else text.translate(_folded)


def clusters(text: str) -> list[tuple[int, str]]:
    """`(index, folded)` of the pieces that fold by themselves: a character and what joins it or vanishes behind it.

    The folded pieces in a row are the folded text.
    """
    joins = _characters().joins
    starts = [i for i, char in enumerate(text) if _folded[ord(char)] and not joins(char)]
    if not joins(text):
        return [(i, _folded[ord(text[i])]) for i in starts]
    if not starts or starts[0] > 0:
        starts.insert(0, 0)
    return [(start, fold(text[start:end])) for start, end in zip(starts, [*starts[1:], len(text)], strict=True)]


def bare(text: str) -> str:
    """The text in lower case without whatever is no letter or digit to rapidfuzz, in 0.5 us for 70 characters.

    It works character by character, so a text that has none of `suspects` is as bare as its folding is.
    """
    return default_process(text).replace(" ", "")


def is_sign(char: str) -> bool:
    """Whether a folded character, such as `+` or an emoji, is lost in `bare`."""
    return bare(char) != char


@lru_cache(maxsize=64)
def suspects(signs: frozenset[str] = frozenset()) -> Search:
    """Finds a character for which a text has to be folded: it joins, or is as bare only when folded, or folds to one of
    `signs`, or is beyond the basic plane. A thread should make the first call, which takes a fifth of a second."""
    folding = {code for code in _characters().changing if not signs.isdisjoint(_folded[code])}
    innocent = set(range(0x10000)) - _characters().suspect - folding - {ord(sign) for sign in signs}
    # Said as the characters that are none, since sre has one table for the basic plane and walks a list beyond it.
    return re.compile(f"[^{_class(innocent)}]").search


class _Characters(NamedTuple):
    """Sets of characters, and the search for one of a set."""

    changing: frozenset[int]
    suspect: frozenset[int]
    joins: Search


@cache
def _characters() -> _Characters:
    codes = [code for start, end in zip([0, *(end for _, end in _PLAIN)], [start for start, _ in _PLAIN], strict=False)
             for code in range(start, end)]  # fmt: skip
    pairs = [parts for code in codes if len(parts := decomposition(chr(code)).split()) == 2 and parts[0][0] != "<"]
    hangul = chain(range(0x1161, 0x1176), range(0x11A8, 0x11C3))  # vowels and finals compose by arithmetic
    seconds = {*(int(second, 16) for _, second in pairs), *hangul}
    joining = {code for code in codes if _joins(chr(code), seconds)}
    changing = {code for code in chain(codes, _SIMPLE) if _fold_once(chr(code)) != chr(code)}
    suspect = joining | {code for code in changing if bare(chr(code)) != bare(_folded[code])}
    for start, end in _JOINING_BEYOND:  # ranges instead of some hundred characters, for the same reason as below
        joining.update(range(start, end))
    return _Characters(frozenset(changing), frozenset(suspect), re.compile(f"[{_class(joining)}]").search)


def _joins(char: str, seconds: set[int]) -> bool:
    """Whether the character, decomposed, begins with one that composes backwards or is reordered."""
    first = normalize("NFKD", char)[0]
    return combining(first) != 0 or ord(first) in seconds


def _class(codes: Set[int]) -> str:
    """The inside of a regular expression's class of these characters."""
    starts = sorted(code for code in codes if code - 1 not in codes)
    ends = sorted(code for code in codes if code + 1 not in codes)
    return "".join(f"\\U{start:08x}-\\U{end:08x}" for start, end in zip(starts, ends, strict=True))
