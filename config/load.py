"""Loads the configuration: every source merged, typed and checked, or an error that says what to mend."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from config.errors import ConfigError
from config.explain import explain
from config.layers import DEFAULT_FILE, Layer, check_names, merge, read_environ, read_file, read_overrides
from config.schema import Config
from config.seeds import check_seeds
from config.sense import check_sense

_NOTHING: Final[Mapping[str, Any]] = {}

__all__ = ["ConfigError", "load", "survey"]


def load(path: str | None, environ: Mapping[str, str], overrides: Mapping[str, Any] = _NOTHING) -> Config:
    """Defaults < the file at `path` < `DISPATCHER__SECTION__KEY` < `overrides` (by dotted path; None says nothing).

    Raises ConfigError, whose text begins with the path of the key that is wrong.
    """
    config, faults = survey(path, environ, overrides)
    for fault in faults:
        raise fault
    return config


def survey(
    path: str | None, environ: Mapping[str, str], overrides: Mapping[str, Any] = _NOTHING
) -> tuple[Config, list[ConfigError]]:
    """The configuration, and everything in it that makes no sense. Raises ConfigError where a key or the type of a
    value is wrong, since nothing more can be said then."""
    layers = [read_file(DEFAULT_FILE, "default")]
    if path is not None:
        layers.append(read_file(Path(path), path))
    layers += [read_environ(environ), read_overrides(overrides)]
    for layer in layers:
        check_names(layer)
    merged, sources = merge(layers)
    config = _typed(merged, sources)
    found = (*check_sense(config), *check_seeds(config))
    return config, [ConfigError(at, what, _where(at, sources)) for at, what in found]


def _typed(merged: dict[str, Any], sources: Mapping[str, Layer]) -> Config:
    origins = {path: _origin(path, layer) for path, layer in sources.items()}
    try:
        return msgspec.convert({**merged, "origins": origins}, Config)
    except msgspec.ValidationError as error:
        at, what = explain(error, Config, merged, "")
        at = at.removeprefix(".")
        raise ConfigError(at, what, _where(at, sources)) from None


def _origin(path: str, layer: Layer) -> str:
    return layer.variables.get(path, layer.origin)


def _where(path: str, sources: Mapping[str, Layer]) -> str:
    """Where the value at or around this path was set; nothing for a shipped default."""
    for known in sorted(sources, key=len, reverse=True):
        if path == known or path.startswith((f"{known}.", f"{known}[")):
            layer = sources[known]
            return "" if layer.origin == "default" else layer.where(path)
    return ""
