"""A provider kind: what `Provider.kind` names, and all that the rest of the program knows about it."""

from collections.abc import Callable

from msgspec import Struct

from channels.adapter import Adapter
from channels.options import Options


class Kind(Struct, frozen=True):
    """`build` makes the adapter from the provider's id and its opened options; it raises OptionsError."""

    options: type[Options]
    channels: tuple[str, ...]
    build: Callable[[str, Options], Adapter]
