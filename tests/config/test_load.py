"""Where values come from, which one wins, and what the errors say."""

from pathlib import Path
from typing import Any

import pytest

from config.load import ConfigError, load


def problem(environ: dict[str, str] | None = None, path: str | None = None, **overrides: Any) -> str:
    """The text of the error that these sources cause."""
    with pytest.raises(ConfigError) as caught:
        load(path, environ or {}, {key.replace("__", "."): value for key, value in overrides.items()})
    return str(caught.value)


def written(tmp_path: Path, text: str) -> str:
    path = tmp_path / "my.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


# -- who wins


def test_later_sources_win(tmp_path: Path) -> None:
    path = written(tmp_path, 'data_dir = "a"\n[http]\nport = 1\nhost = "::1"\nstream_patience_s = 5\n')
    config = load(path, {"DISPATCHER__HTTP__PORT": "2", "DISPATCHER__HTTP__MAX_STREAMS": "9"}, {"http.port": 3})
    assert (config.data_dir, config.http.host, config.http.stream_patience_s) == ("a", "::1", 5.0)
    assert (config.http.port, config.http.max_streams) == (3, 9)
    assert config.outbox.max_messages == 100_000
    assert config.origins["http.host"] == path
    assert config.origins["http.max_streams"] == "DISPATCHER__HTTP__MAX_STREAMS"
    assert config.origins["http.port"] == "command line"
    assert config.origins["outbox.max_messages"] == "default"


def test_an_override_of_none_says_nothing() -> None:
    assert load(None, {}, {"http.port": None, "redis.url": None}) == load(None, {})


def test_text_needs_no_quotes_in_a_variable_and_lists_are_json_or_toml() -> None:
    config = load(
        None,
        {
            "DISPATCHER__TIMEZONE": "UTC",
            "DISPATCHER__LINKS__DOMAIN": "s.example.com",
            "DISPATCHER__RULES": "[]",
            "DISPATCHER__HTTP__KEYS": '[{name = "a", key = "env:A"}]',
            "DISPATCHER__LINES": '{"wallet": {"name": "Wallet"}}',
            "OTHER": "x",
        },
    )
    assert (config.timezone, config.links.domain, config.rules) == ("UTC", "s.example.com", [])
    assert config.http.keys[0].key == "env:A"
    assert config.lines == {"wallet": {"name": "Wallet"}}


def test_documents_add_up_by_id_and_lists_are_replaced(tmp_path: Path) -> None:
    path = written(tmp_path, '[lines.a]\nname = "A"\n[[rules]]\nname = "only"\nkind = "repeat"\n')
    config = load(path, {"DISPATCHER__LINES__B": '{"name": "B"}'})
    assert sorted(config.lines) == ["a", "b"]
    assert [rule["name"] for rule in config.rules] == ["only"]


# -- what errors say


@pytest.mark.parametrize(
    ("environ", "text"),
    [
        ({"DISPATCHER__HTTP__PORT": "x"}, 'http.port: expected an integer, got "x" (DISPATCHER__HTTP__PORT)'),
        ({"DISPATCHER__HTTP__PORT": "70000"}, "http.port: expected an integer <= 65535, got 70000"),
        ({"DISPATCHER__HTTP__PROT": "1"}, 'http.prot: unknown key, did you mean "port"?'),
        ({"DISPATCHER__SHARD": "1"}, 'shard: unknown key, did you mean "shards"?'),
        ({"DISPATCHER__LINKS__ZZZ": "1"}, "links.zzz: unknown key; known here: domain"),
        ({"DISPATCHER__ORIGINS": "{}"}, "origins: unknown key"),
        ({"DISPATCHER__HTTP": "5"}, "http: expected a table"),
        ({"DISPATCHER__SHARDS": "0"}, "shards: expected an integer >= 1, got 0"),
        ({"DISPATCHER__SHARDS": "65"}, "shards: 65 shards cannot share 64 partitions"),
        ({"DISPATCHER__DRAIN_S": "-1"}, "drain_s: expected a number > 0.0, got -1"),
        ({"DISPATCHER__DURABILITY": "never"}, 'durability: expected one of "everysec", "fsync", got "never"'),
        ({"DISPATCHER__TIMEZONE": "Asia/Shangai"}, 'timezone: there is no zone "Asia/Shangai", did you mean "Asia/Sh'),
        ({"DISPATCHER__TIMEZONE": "../etc"}, "timezone: there is no zone"),
        ({"DISPATCHER__TIMEZONE": ""}, "timezone: there is no zone"),
        ({"DISPATCHER__REGION": "cn"}, 'region: "cn" is no region of phone numbers (ISO 3166, such as "CN"), did you'),
        ({"DISPATCHER__HTTP__HOST": "0.0.0.0"}, 'http.keys: others can reach http.host "0.0.0.0"'),
        ({"DISPATCHER__HTTP__HOST": "::"}, 'http.keys: others can reach http.host "::"'),
        ({"DISPATCHER__REDIS__URL": "http://x"}, "redis.url: expected redis://, rediss:// or unix://"),
        ({"DISPATCHER__RAY__ADDRESS": "ray://x:1"}, "ray.address: expected"),
        ({"DISPATCHER__LINKS__DOMAIN": "https://x"}, "links.domain: expected a domain"),
        ({"DISPATCHER__LOG__LEVEL": "loud"}, 'log.level: expected one of "debug", "error", "info", "warning", got'),
        ({"DISPATCHER__A__B__C": "1"}, "DISPATCHER__A__B__C: expected DISPATCHER__SECTION__KEY"),
        ({"DISPATCHER__HTTP__KEYS": '[{"name": "a"}]'}, "http.keys[0].key: is missing"),
        ({"DISPATCHER__HTTP__KEYS": '[{"name": 5, "key": "env:A"}]'}, "http.keys[0].name: expected text"),
        (
            {"DISPATCHER__HTTP__KEYS": '[{"name":"a","key":"env:A"},{"name":"a","key":"env:B"}]'},
            'http.keys[1].name: another key is already called "a"',
        ),
    ],
)
def test_an_error_names_the_path_and_what_was_expected(environ: dict[str, str], text: str) -> None:
    assert problem(environ).startswith(text)


def test_an_error_names_file_and_line(tmp_path: Path) -> None:
    path = written(tmp_path, 'shards = 1\n\n[http]\nhost = "::1"\nport = "x"\n')
    assert problem(path=path) == f'http.port: expected an integer, got "x" ({path}, line 5)'


def test_an_error_within_a_list_of_tables_names_its_line(tmp_path: Path) -> None:
    rules = '[[rules]]\nname = "a"\nkind = "repeat"\n\n[[rules]]\nname = "b"\nkind = "repeat"\nwindow_s = "x"\n'
    path = written(tmp_path, rules)
    assert problem(path=path) == f'rules[1].window_s: expected a number, got "x" ({path}, line 8)'


def test_a_file_that_is_not_there_or_not_toml(tmp_path: Path) -> None:
    missing = str(tmp_path / "none.toml")
    assert problem(path=missing) == f"{missing}: cannot be read: No such file or directory"
    broken = written(tmp_path, "a = [\n")
    assert problem(path=broken).startswith(f"{broken}: is not TOML: ")


def test_an_error_of_the_command_line_says_so() -> None:
    assert problem(http__port="x") == 'http.port: expected an integer, got "x" (command line)'


def test_a_host_that_others_reach_is_fine_with_keys() -> None:
    keys = '[{"name": "a", "key": "env:A"}]'
    config = load(None, {"DISPATCHER__HTTP__HOST": "0.0.0.0", "DISPATCHER__HTTP__KEYS": keys})
    assert config.http.host == "0.0.0.0"


def test_no_error_repeats_a_secret(tmp_path: Path) -> None:
    text = problem({"DISPATCHER__HTTP__KEYS": '[{"name": "a", "key": "geheim"}]'})
    assert text.startswith('http.keys[0].key: expected "env:NAME" or "file:NAME"')
    assert "geheim" not in text
    assert "geheim" not in problem(path=written(tmp_path, '[[http.keys]]\nname = "a"\nkey = ["geheim"]\n'))
    assert "geheim" not in problem({"DISPATCHER__REDIS__URL": "http://u:geheim@x"})
    assert "geheim" not in repr(load(None, {"DISPATCHER__REDIS__URL": "redis://u:geheim@x"}))
