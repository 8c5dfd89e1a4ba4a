"""Texts as the naive reader of `rules.md` folds and renders them."""

import html
import re
import unicodedata
from functools import cache
from typing import Any

#: Traditional to simplified, as far as the cases go.
_SIMPLE = {"優": "优", "發": "发", "國": "国", "貸": "贷", "獎": "奖"}


@cache
def folded(text: str) -> str:
    """NFKC, case folded, simplified, and freed of separators (Unicode Z*, Cf, Cc, Mn, P* and `_`)."""
    text = "".join(_SIMPLE.get(c, c) for c in unicodedata.normalize("NFKC", text).casefold())
    return "".join(c for c in text if not _separates(c))


def _separates(char: str) -> bool:
    category = unicodedata.category(char)
    return category[0] in "ZP" or category in ("Cf", "Cc", "Mn")


def words_in(text: str, words: list[str]) -> set[str]:
    """The words of a list that a text contains."""
    found = folded(text)
    return {word for word in words if folded(word) and folded(word) in found}


def render(value: Any, params: dict[str, str], escape: bool = False) -> Any:
    """A template's value with `{name}` replaced. Raises KeyError for a parameter that is missing."""
    if isinstance(value, dict):
        return {key: render(inner, params, escape) for key, inner in value.items()}
    if isinstance(value, list):
        return [render(inner, params, escape) for inner in value]
    if not isinstance(value, str):
        return value
    return re.sub(r"\{(\w+)\}", lambda m: html.escape(params[m[1]]) if escape else params[m[1]], value)


def rendered(content: dict[str, Any], params: dict[str, str]) -> dict[str, Any]:
    """All rendered fields of one channel of a template."""
    return {name: render(value, params, name == "html") for name, value in content.items() if name != "channel"}


def texts_of(value: Any) -> list[str]:
    """Every text in a field, however deep."""
    if isinstance(value, str):
        return [value]
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [text for one in inner for text in texts_of(one)]
