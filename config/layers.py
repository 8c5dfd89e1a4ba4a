"""Where values come from: the shipped defaults, a file, the environment, the command line. Later layers win."""

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct

from config.errors import ConfigError, unknown_key
from config.lines import line_of
from config.schema import NOT_KEYS, SEEDED, Config

DEFAULT_FILE: Final = Path(__file__).with_name("default.toml")
PREFIX: Final = "DISPATCHER__"
_DEFAULTS: Final = Config()
KEYS: Final = tuple(name for name in Config.__struct_fields__ if name not in NOT_KEYS)


class Layer(Struct, frozen=True):
    """Values of one source, two levels deep; `variables` names the variable of a path, `text` is a file's."""

    origin: str
    values: dict[str, Any]
    text: str = ""
    variables: dict[str, str] = {}

    def where(self, path: str) -> str:
        """The source of a path's value for people: file and line, variable, or what the origin says."""
        if self.variables:
            return next((name for known, name in self.variables.items() if path.startswith(known)), self.origin)
        line = line_of(self.text, path) if self.text else None
        return self.origin if line is None else f"{self.origin}, line {line}"


def read_file(path: Path, origin: str) -> Layer:
    """The layer of a TOML file. Raises ConfigError."""
    try:
        text = path.read_text(encoding="utf-8")
        return Layer(origin, tomllib.loads(text), text)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigError(origin, f"cannot be read: {reason}") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(origin, f"is not TOML: {error}") from None


def read_environ(environ: Mapping[str, str]) -> Layer:
    """The layer of every `DISPATCHER__SECTION__KEY` and `DISPATCHER__KEY`. Raises ConfigError."""
    values: dict[str, Any] = {}
    variables = {}
    for name, text in sorted(environ.items()):
        if not name.startswith(PREFIX):
            continue
        parts = name[len(PREFIX) :].lower().split("__")
        path = ".".join(parts)
        if len(parts) > 2 or not all(parts):
            raise ConfigError(name, f"expected {PREFIX}SECTION__KEY or {PREFIX}KEY")
        _place(values, path, text if _is_text(path) else _parsed(text))
        variables[path] = name
    return Layer("environment", values, variables=variables)


def read_overrides(overrides: Mapping[str, Any]) -> Layer:
    """The layer of values by dotted path; None says nothing."""
    values: dict[str, Any] = {}
    for path, value in overrides.items():
        if value is not None:
            _place(values, path, value)
    return Layer("command line", values)


def check_names(layer: Layer) -> None:
    """Every key of the layer exists and every section is a table. Raises ConfigError."""
    for name, value in layer.values.items():
        if name not in KEYS:
            raise ConfigError(name, unknown_key(name, KEYS), layer.where(name))
        default = getattr(_DEFAULTS, name)
        if isinstance(default, Struct | dict) and not isinstance(value, dict):
            raise ConfigError(name, "expected a table", layer.where(name))
        if isinstance(default, Struct):
            _check_section(layer, name, value, default.__struct_fields__)


def _check_section(layer: Layer, name: str, section: dict[str, Any], known: Sequence[str]) -> None:
    for key in section:
        if key not in known:
            path = f"{name}.{key}"
            raise ConfigError(path, unknown_key(key, known), layer.where(path))


def merge(layers: Sequence[Layer]) -> tuple[dict[str, Any], dict[str, Layer]]:
    """The values in force, and for each path (`http.port`, `templates.pay_ok`, `rules`) the layer it is from."""
    merged: dict[str, Any] = {}
    sources: dict[str, Layer] = {}
    for layer in layers:
        for path, value in _leaves(layer.values):
            _place(merged, path, value)
            sources[path] = layer
    return merged, sources


def _leaves(values: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict):
            for key, inner in value.items():
                yield f"{name}.{key}", inner
        else:
            yield name, value


def _place(values: dict[str, Any], path: str, value: Any) -> None:
    name, _, key = path.partition(".")
    if not key:
        values[name] = value
    else:
        values[name] = {**values.get(name, {}), key: value}


def _is_text(path: str) -> bool:
    """Whether the key at this path holds text, which needs no quotes in a variable."""
    name, _, key = path.partition(".")
    if name in SEEDED:
        return False
    value = getattr(_DEFAULTS, name, None)
    return isinstance(getattr(value, key, None) if key else value, str)


def _parsed(text: str) -> Any:
    """A variable's text as JSON or else as a TOML value; as it stands when it is neither, to be complained of."""
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        pass
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (tomllib.TOMLDecodeError, KeyError):
        return text
