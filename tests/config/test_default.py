"""The shipped file and the schema say the same, and the file explains every key."""

import re
import tomllib
from typing import Any

import msgspec
from msgspec import Struct

from config.layers import DEFAULT_FILE, KEYS
from config.load import load
from config.schema import SEEDED, Config

TEXT = DEFAULT_FILE.read_text(encoding="utf-8")


def settings(value: dict[str, Any]) -> dict[str, Any]:
    return {key: inner for key, inner in value.items() if key not in (*SEEDED, "origins")}


def test_the_file_has_the_keys_and_defaults_of_the_schema() -> None:
    assert settings(tomllib.loads(TEXT)) == settings(msgspec.to_builtins(Config()))
    assert set(tomllib.loads(TEXT)) == set(KEYS)


def test_loading_nothing_gives_the_defaults_of_the_schema() -> None:
    assert settings(msgspec.to_builtins(load(None, {}))) == settings(msgspec.to_builtins(Config()))


def test_every_key_is_explained() -> None:
    """A key stands below a comment, or directly below another key of the same comment."""
    lines = TEXT.splitlines()
    for i, line in enumerate(lines):
        if re.match(r"\w+ =", line) and "[[rules]]" not in lines[:i]:
            assert re.match(r"# |\w+ =", lines[i - 1]), line


def test_every_section_stands_in_the_file() -> None:
    for name in KEYS:
        default = getattr(Config(), name)
        if isinstance(default, Struct):
            assert f"\n[{name}]\n" in TEXT


def test_the_shipped_rules_and_their_order() -> None:
    rules = load(None, {}).rules
    assert [(rule["kind"], *rule.get("channels", ())) for rule in rules] == [
        ("keyword",),
        ("blacklist",),
        ("quiet_hours",),
        ("task_frequency",),
        ("frequency", "sms"),
        ("frequency", "push"),
        ("frequency", "wechat"),
        ("frequency", "email"),
        ("level_cap",),
        ("line_cap", "sms"),
        ("line_cap", "push"),
        ("company_cap", "sms"),
        ("company_cap", "push"),
        ("repeat",),
    ]
    caps = {rule["name"]: (rule["limit"], rule.get("per") or rule["window_s"]) for rule in rules if "limit" in rule}
    assert caps == {
        "frequency_sms": (1, 604_800),
        "frequency_push": (3, 86_400),
        "frequency_wechat": (2, 604_800),
        "frequency_email": (2, 604_800),
        "task_frequency": (1, 2_592_000),
        "level_cap": (3, 86_400),
        "line_cap_sms": (5, "day"),
        "line_cap_push": (20, "day"),
        "company_cap_sms": (30, "day"),
        "company_cap_push": (60, "day"),
    }
