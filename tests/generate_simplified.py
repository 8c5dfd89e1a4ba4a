"""Writes `dispatcher/simplified.py` from the installed opencc: `python -m tests.generate_simplified`."""

import textwrap
from pathlib import Path
from typing import Final
from unicodedata import normalize

from opencc import OpenCC

import dispatcher

TARGET: Final = Path(dispatcher.__file__).parent / "simplified.py"
HEAD: Final = '''"""Traditional characters and their simplified forms, pairwise; generated, not edited.

Made by `python -m tests.generate_simplified` from opencc's `t2s` conversion of every single character that NFKC leaves
alone. Chains are followed to their end, so that a simplified form is never itself a key. `tests/test_keywords.py`
compares the table with the installed opencc.
"""

from typing import Final
'''


def table() -> dict[str, str]:
    """What opencc makes of single characters, other than themselves, its chains followed to their end."""
    everyone = [chr(code) for code in range(0x80, 0x110000) if not 0xD800 <= code < 0xE000]
    stable = [char for char in everyone if normalize("NFKC", char) == char and len(char.splitlines()[0]) == 1]
    converted = OpenCC("t2s").convert("\n".join(stable)).split("\n")
    changed = {a: b for a, b in zip(stable, converted, strict=True) if a != b}
    for traditional, simple in changed.items():
        end = simple
        while end in changed:
            end = changed[end]
        changed[traditional] = end
    return changed


def literal(name: str, text: str) -> str:
    """One string constant over as many lines as it takes."""
    lines = "\n".join(f'    "{line}"' for line in textwrap.wrap(text, 50, break_long_words=True))
    return f"\n{name}: Final = (\n{lines}\n)\n"


def module() -> str:
    """The source of the whole module."""
    pairs = table()
    return HEAD + literal("TRADITIONAL", "".join(pairs)) + literal("SIMPLIFIED", "".join(pairs.values()))


if __name__ == "__main__":
    TARGET.write_text(module())
