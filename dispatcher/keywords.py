"""Words that must not be said: a list of them, and the search for them in a message's rendered fields.

A field contains a word when the folded field contains the folded word (`dispatcher.fold`). The search is that of Aho
and Corasick, by daachorse: a double array with a step for each character, which can be made in another process and
dropped at once.
"""

import subprocess
import sys
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, islice
from pathlib import Path
from struct import Struct as Layout
from typing import IO, Any, Final, NamedTuple

from daachorse import MATCH_KIND_LEFTMOST_LONGEST, CharwiseDoubleArrayAhoCorasick

from dispatcher.fold import bare, clusters, fold, is_sign, suspects

#: From here on a list is built by a process of its own. In a thread, 200,000 words would hold the GIL for 45 to 180 ms
#: inside the library, and compete for it for a second.
_MANY: Final = 10_000
_SLICE: Final = 5_000  # strings at a time, so that other threads get their turn
_SIZE: Final = Layout("<Q")  # bytes of what follows, in a pipe
_ROOT: Final = Path(__file__).resolve().parent.parent


class Hit(NamedTuple):
    """A word as listed, the path of the field that contains it, and where in the field as rendered it begins."""

    word: str
    field: str
    at: int


class WordList:
    """A list of words, ready to be searched for; making it costs seconds for 200,000 words, so a thread should.

    Words that fold to the same count as the first of them, and words that fold to nothing match nothing.
    """

    __slots__ = ("_search", "_suspects", "_words", "empty", "name")

    def __init__(self, name: str, words: Sequence[str]) -> None:
        self.name = name
        built = build(words) if len(words) < _MANY else _build_many(words)
        self._words = built.words
        self.empty = not len(built.words)
        self._suspects = suspects(frozenset(built.signs))
        self._search = CharwiseDoubleArrayAhoCorasick.deserialize(built.automaton).find

    def __len__(self) -> int:
        """How many different words there are."""
        return len(self._words)

    def find(self, fields: Mapping[str, Any]) -> Hit | None:
        """The leftmost word, and the longest of those that begin there, in the first field that contains one.

        `fields` are strings by name, or maps and lists of strings; other values are no text.
        """
        try:
            text = " ".join(fields.values())
        except TypeError:
            text = " ".join([value for _, value in leaves(fields)])
        # Nearly every message ends here. Without suspects the fields hold no word with a sign in it, and are as bare as
        # when folded, so any other word would be found. Found may be one too many: across two fields, or across signs.
        if not self._suspects(text) and not self._search(bare(text)):
            return None
        return self._find_folded(fields)

    def _find_folded(self, fields: Mapping[str, Any]) -> Hit | None:
        for path, text in leaves(fields):
            found = self._search(fold(text))
            if found:
                start, _, which = found[0]
                return Hit(self._words[which], path, _at(text, start))
        return None


class Built(NamedTuple):
    """What a word list consists of: its words, the signs in them, and the automaton."""

    words: "Texts"
    signs: str
    automaton: bytes


class Texts:
    """Many strings as one, and the bounds between them: a tenth of their memory, and freed at once."""

    __slots__ = ("_bounds", "_whole")

    def __init__(self, whole: str, bounds: "array[int]") -> None:
        self._whole = whole
        self._bounds = bounds

    @classmethod
    def of(cls, texts: Iterable[str]) -> "Texts":
        rest, wholes, bounds = iter(texts), [], array("Q", [0])
        while some := list(islice(rest, _SLICE)):
            wholes.append("".join(some))
            bounds.extend(accumulate(map(len, some), initial=bounds.pop()))
        return cls("".join(wholes), bounds)

    def __len__(self) -> int:
        return len(self._bounds) - 1

    def __iter__(self) -> Iterator[str]:
        return map(self.__getitem__, range(len(self)))

    def __getitem__(self, i: int) -> str:
        return self._whole[self._bounds[i] : self._bounds[i + 1]]

    def parts(self) -> tuple[bytes, bytes]:
        """As bytes, for a pipe."""
        return self._whole.encode("utf-8", "surrogatepass"), self._bounds.tobytes()

    @classmethod
    def from_parts(cls, whole: bytes, bounds: bytes) -> "Texts":
        return cls(whole.decode("utf-8", "surrogatepass"), array("Q", bounds))


def build(words: Iterable[str]) -> Built:
    """The parts of a list: a second and 100 MB for 200,000 words."""
    listed: dict[str, str] = {}
    for word in words:
        listed.setdefault(fold(word), word)
    listed.pop("", None)
    automaton = CharwiseDoubleArrayAhoCorasick([*listed], MATCH_KIND_LEFTMOST_LONGEST, use_prefilter=False)
    signs = "".join(sorted(filter(is_sign, set().union(*listed))))
    return Built(Texts.of(listed.values()), signs, automaton.serialize())


def _build_many(words: Sequence[str]) -> Built:
    """`build` where it holds up nobody. Where no other process can be had, the list takes effect all the same, at the
    price of pauses."""
    try:
        return _build_apart(words)
    except (OSError, EOFError):
        return build(words)


def _build_apart(words: Sequence[str]) -> Built:
    """`build` in a process of its own. Raises OSError or EOFError when that fails."""
    with subprocess.Popen(
        [sys.executable, "-m", "dispatcher.keywords"], cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        _write(process.stdin, *Texts.of(words).parts())
        process.stdin.close()
        whole, bounds, signs, automaton = _read(process.stdout, 4)
    return Built(Texts.from_parts(whole, bounds), signs.decode(), automaton)


def _main() -> None:
    built = build(Texts.from_parts(*_read(sys.stdin.buffer, 2)))
    _write(sys.stdout.buffer, *built.words.parts(), built.signs.encode(), built.automaton)


def _write(pipe: IO[bytes], *parts: bytes) -> None:
    for part in parts:
        pipe.write(_SIZE.pack(len(part)))
        pipe.write(part)


def _read(pipe: IO[bytes], count: int) -> list[bytes]:
    """That many parts, each read in one piece: to copy 15 MB about in memory would be a pause."""
    return [_exactly(pipe, _SIZE.unpack(_exactly(pipe, _SIZE.size))[0]) for _ in range(count)]


def _exactly(pipe: IO[bytes], size: int) -> bytes:
    data = pipe.read(size)
    if len(data) != size:
        raise EOFError("the process that builds a word list ended early")
    return data


def leaves(fields: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Every string in the fields with its path, such as `data.keyword1.value` or `body.items[2]`."""
    if isinstance(fields, str):
        yield path, fields
    elif isinstance(fields, Mapping):
        for name, value in fields.items():
            yield from leaves(value, f"{path}.{name}" if path else str(name))
    elif isinstance(fields, list | tuple):
        for i, value in enumerate(fields):
            yield from leaves(value, f"{path}[{i}]")


def check_words(words: Sequence[str]) -> list[tuple[str, str]]:
    """`(path, message)` for each word that nothing could contain."""
    return [
        (f"words[{i}]", f"{word!r} has nothing but separators") for i, word in enumerate(words) if not fold(word)
    ]


def _at(text: str, start: int) -> int:
    """The index in `text` of the character that gives the folded text's character `start`."""
    done = 0
    for index, folded in clusters(text):
        if start < done + len(folded):
            return index
        done += len(folded)
    raise IndexError(start)


if __name__ == "__main__":
    _main()
