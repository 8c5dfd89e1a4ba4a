"""Secrets: written in options as `env:NAME` or `file:NAME`, opened only at the edge, never shown."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

_SCHEMES: Final = ("env:", "file:")
MASK: Final = "***"
_LONGEST_FILE_BYTES: Final = 1024 * 1024


class Secret:
    """A value that shows itself only to who asks with `reveal`."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        return self._value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __repr__(self) -> str:
        return f"Secret({MASK})"

    __str__ = __repr__

    def __reduce__(self) -> Any:
        """Refused: a pickled secret would travel in the open."""
        raise TypeError("a secret is not pickled")


class Unresolved(Exception):
    """A reference leads nowhere; `args[0]` says which and why, never what is behind it."""


def is_reference(value: object) -> bool:
    """Whether a value stands for another: `env:NAME` or `file:NAME`."""
    return isinstance(value, str) and value.startswith(_SCHEMES)


def resolve(value: str, environ: Mapping[str, str]) -> str:
    """What a reference stands for; a file without its last line break. Raises Unresolved."""
    scheme, _, name = value.partition(":")
    if not name:
        raise Unresolved(f"`{scheme}:` needs a name after it")
    return _from_environment(name, environ) if scheme == "env" else _from_file(name)


def _from_environment(name: str, environ: Mapping[str, str]) -> str:
    found = environ.get(name)
    if not found:
        raise Unresolved(f"the environment variable {name} is not set")
    return found


def _from_file(name: str) -> str:
    try:
        with Path(name).open("rb") as file:
            raw = file.read(_LONGEST_FILE_BYTES + 1)
        if len(raw) > _LONGEST_FILE_BYTES:
            raise Unresolved(f"the file {name} is longer than {_LONGEST_FILE_BYTES} bytes")
        text = raw.decode()
    except OSError as error:
        raise Unresolved(f"the file {name} cannot be read: {error.strerror}") from None
    except ValueError:  # its text would show the bytes
        raise Unresolved(f"the file {name} is not UTF-8 text") from None
    found = text.removesuffix("\n").removesuffix("\r")
    if not found:
        raise Unresolved(f"the file {name} is empty")
    return found
