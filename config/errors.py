"""What is wrong with a configuration, in words that name the exact place."""

from collections.abc import Iterable
from difflib import get_close_matches


class ConfigError(Exception):
    """`<path>: <what> (<where>)`. `where` is the file and line, the variable, or the command line."""

    def __init__(self, path: str, what: str, where: str = "") -> None:
        super().__init__(f"{path}: {what}" + (f" ({where})" if where else ""))
        self.path = path
        self.what = what
        self.where = where


def unknown_key(name: str, known: Iterable[str]) -> str:
    """What to say of a key that does not exist: the nearest that does, or all of them when they are few."""
    names = sorted(known)
    near = get_close_matches(name.lower(), names, n=1, cutoff=0.6)
    if near:
        return f'unknown key, did you mean "{near[0]}"?'
    return "unknown key" + (f"; known here: {', '.join(names)}" if 0 < len(names) <= 12 else "")
