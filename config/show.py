"""Prints the configuration in force as TOML, with the origin of every value and without secrets."""

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from config.layers import KEYS
from config.schema import SEEDED, Config
from config.secrets import masked

_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")
#: Longer lists (keywords) are cut: nobody reads them on a terminal.
MAX_ITEMS: Final = 100


def show(config: Config) -> str:
    """The effective TOML. Each value is followed by its origin: default, the file, the variable, the command line."""
    values = msgspec.to_builtins(config)
    plain = [name for name in KEYS if not isinstance(values[name], dict) and not (name in SEEDED and values[name])]
    sections = [name for name in KEYS if name not in SEEDED and isinstance(values[name], dict)]
    parts = ["\n".join(_line(config, name, name, values[name]) for name in plain)]
    for name in sections:
        lines = [_line(config, f"{name}.{key}", key, value) for key, value in values[name].items()]
        parts.append("\n".join([f"[{name}]", *lines]))
    for kind in SEEDED:
        parts += _documents(config, kind, values[kind])
    return "\n\n".join(parts) + "\n"


def sources(config: Config) -> str:
    """Where the values in force come from, besides the shipped defaults."""
    others = sorted({origin for origin in config.origins.values() if origin != "default"})
    return ", ".join(others) or "the shipped defaults"


def toml_of(values: Mapping[str, Any]) -> str:
    """These settings as a file for `--config`: one line a key, tables inline."""
    return "".join(f"{_key(key)} = {_value(value)}\n" for key, value in values.items())


def _line(config: Config, path: str, key: str, value: Any) -> str:
    return f"{key} = {_value(masked(path, value))}  # {config.origins.get(path, 'default')}"


def _documents(config: Config, kind: str, documents: Any) -> list[str]:
    if isinstance(documents, list):
        origin = config.origins.get(kind, "default")
        return [_table(f"[[{kind}]]  # {origin}", masked(kind, document)) for document in documents]
    tables = []
    for id_, document in documents.items():
        path = f"{kind}.{id_}"
        header = f"[{kind}.{_key(id_)}]  # {config.origins.get(path, 'default')}"
        tables.append(_table(header, masked(path, document)))
    return tables


def _table(header: str, document: dict[str, Any]) -> str:
    lines = [f"{_key(key)} = {_cut(value)}" for key, value in document.items() if value is not None]
    return "\n".join([header, *lines])


def _key(key: str) -> str:
    return key if _BARE.fullmatch(key) else _text(key)


def _text(text: str) -> str:
    """A TOML basic string; JSON's escapes are all TOML's, but TOML also wants DEL escaped."""
    return msgspec.json.encode(text).decode().replace("\x7f", "\\u007f")


def _cut(value: Any) -> str:
    if isinstance(value, list) and len(value) > MAX_ITEMS:
        return f"{_value(value[:MAX_ITEMS])}  # and {len(value) - MAX_ITEMS:,} more"
    return _value(value)


def _value(value: Any) -> str:
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, dict):
        inner = ", ".join(f"{_key(key)} = {_value(item)}" for key, item in value.items() if item is not None)
        return f"{{ {inner} }}" if inner else "{}"
    if isinstance(value, list):
        return f"[{', '.join(_value(item) for item in value)}]"
    return msgspec.json.encode(value).decode()
