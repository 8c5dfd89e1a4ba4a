"""What `dispatcher config show` prints: TOML that loads again, with origins, without secrets."""

import tomllib
from pathlib import Path

import msgspec

from config.load import load
from config.secrets import masked
from config.show import MAX_ITEMS, show

FILE = """
timezone = "UTC"
[redis]
url = "redis://user:geheim@example.com:6379/0"
[[http.keys]]
name = "a"
key = "env:A_KEY"
[lines."größte.linie"]
name = 'a "quoted" \\ name'
[providers.p]
kind = "webhook"
channel = "sms"
options = { url = "https://example.com/", secret = "file:secret" }
[keywords.long]
words = [WORDS]
"""


def shown(tmp_path: Path) -> str:
    path = tmp_path / "my.toml"
    path.write_text(FILE.replace("WORDS", ", ".join(f'"w{i}"' for i in range(MAX_ITEMS + 5))), encoding="utf-8")
    return show(load(str(path), {"DISPATCHER__SHARDS": "2"}, {"http.port": 0}))


def test_the_defaults_load_again_from_what_is_shown(tmp_path: Path) -> None:
    path = tmp_path / "shown.toml"
    path.write_text(show(load(None, {})), encoding="utf-8")
    again = msgspec.structs.replace(load(str(path), {}), origins={})
    assert again == msgspec.structs.replace(load(None, {}), origins={})


def test_an_empty_list_is_shown_as_one(tmp_path: Path) -> None:
    assert "rules = []  # DISPATCHER__RULES\n" in show(load(None, {"DISPATCHER__RULES": "[]"}))


def test_every_value_tells_where_it_came_from(tmp_path: Path) -> None:
    text = shown(tmp_path)
    assert "shards = 2  # DISPATCHER__SHARDS\n" in text
    assert "port = 0  # command line\n" in text
    assert "gateways = 2  # default\n" in text
    assert f'timezone = "UTC"  # {tmp_path}/my.toml\n' in text
    assert f"[providers.p]  # {tmp_path}/my.toml\n" in text


def test_secrets_are_masked_and_references_are_not(tmp_path: Path) -> None:
    text = shown(tmp_path)
    assert "geheim" not in text
    assert 'url = "redis://user:***@example.com:6379/0"' in text
    values = tomllib.loads(text)
    assert values["http"]["keys"][0]["key"] == "env:A_KEY"
    assert values["providers"]["p"]["options"] == {
        "url": "https://example.com/",
        "secret": "file:secret",
    }


def test_a_secret_that_stands_there_itself_is_masked() -> None:
    options = {"secret": "geheim", "corp_secret": "geheim", "key": "geheim", "key_id": "K", "token": "env:T", "n": 1}
    assert masked("providers.p.options", options) == {
        "secret": "***",
        "corp_secret": "***",
        "key": "***",
        "key_id": "K",
        "token": "env:T",
        "n": 1,
    }
    assert masked("a.url", "https://u:geheim@example.com/") == "https://u:***@example.com/"
    assert masked("http.keys", [{"name": "a", "key": "geheim"}]) == [{"name": "a", "key": "***"}]


def test_odd_names_and_texts_survive(tmp_path: Path) -> None:
    assert tomllib.loads(shown(tmp_path))["lines"] == {"größte.linie": {"name": 'a "quoted" \\ name'}}


def test_long_lists_are_cut(tmp_path: Path) -> None:
    text = shown(tmp_path)
    assert len(tomllib.loads(text)["keywords"]["long"]["words"]) == MAX_ITEMS
    assert "# and 5 more" in text
