"""Callers' keys: references are opened at the edge, and errors name the key, never the secret."""

from pathlib import Path

import pytest

from config.load import ConfigError
from config.schema import HttpKey
from config.secrets import resolve_keys


def test_references_are_opened(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("from-file\n", encoding="utf-8")
    keys = [HttpKey("a", "env:A"), HttpKey("b", f"file:{tmp_path}/key", ("admin",), "wallet")]
    a, b = resolve_keys(keys, {"A": "from-env"})
    assert (a.name, a.key, a.roles, a.line) == ("a", "from-env", ("send",), None)
    assert (b.name, b.key, b.roles, b.line) == ("b", "from-file", ("admin",), "wallet")


def test_a_reference_that_leads_nowhere_names_its_key() -> None:
    with pytest.raises(ConfigError, match=r"^http\.keys\[1\]\.key: the environment variable B is not set$"):
        resolve_keys([HttpKey("a", "env:A"), HttpKey("b", "env:B")], {"A": "x"})


def test_two_callers_have_two_secrets() -> None:
    with pytest.raises(ConfigError, match=r'^http\.keys\[1\]\.key: the key "a" has the same secret$'):
        resolve_keys([HttpKey("a", "env:A"), HttpKey("b", "env:A")], {"A": "geheim"})
