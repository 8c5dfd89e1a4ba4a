"""The documents that a configuration seeds: checked like those that come over HTTP, with the path of the fault."""

from pathlib import Path

import pytest

from config.load import ConfigError, load
from config.seeds import seeds
from dispatcher.catalog import LIST_ID, Catalog, decode_document

GOOD = """
[templates.pay_ok]
type = "notice"
line = "wallet"
[[templates.pay_ok.channels]]
channel = "sms"
text = "{name}: {amount}"
[lines.wallet]
name = "Wallet"
[providers.a]
kind = "webhook"
channel = "sms"
options = { url = "https://example.com/send" }
[[routes]]
providers = [{ id = "a" }]
[keywords.default]
words = ["x"]
"""


def loaded(tmp_path: Path, text: str) -> dict[str, dict[str, bytes]]:
    path = tmp_path / "my.toml"
    path.write_text(text, encoding="utf-8")
    return seeds(load(str(path), {}))


def test_seeds_are_what_the_catalog_loads(tmp_path: Path) -> None:
    documents = loaded(tmp_path, GOOD)
    for kind, by_id in documents.items():
        for data in by_id.values():
            decode_document(kind, data)
    catalog = Catalog()
    catalog.load(1, documents)
    assert list(catalog.templates) == ["pay_ok"]
    assert catalog.lines["wallet"].name == "Wallet"
    assert [route.providers[0].id for route in catalog.routes] == ["a"]
    assert len(catalog.rules) == len(load(None, {}).rules)
    assert list(documents["rules"]) == [LIST_ID]
    assert catalog.keywords["default"].find({"text": "X"}) is not None


def test_the_shipped_rules_find_their_empty_list() -> None:
    documents = seeds(load(None, {}))
    assert documents["keywords"] == {"default": b'{"words":[]}'}
    catalog = Catalog()
    catalog.load(1, documents)
    assert "default" in [getattr(rule, "list", None) for rule in catalog.rules]
    assert catalog.keywords["default"].find({"text": "anything"}) is None


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('[templates.t]\ntype = "notice"\nchannels = []\n', "templates.t.channels: expected a list of length >= 1"),
        ('[templates.t]\ntype = "notic"\nchannels = []\n', 'templates.t.type: expected one of "marketing", "notice"'),
        (
            '[templates.t]\ntype = "notice"\n[[templates.t.channels]]\nchannel = "sms"\ntext = "{a"\n',
            "templates.t.channels[0].text: a single '{' at 0",
        ),
        (
            '[templates.t]\ntype = "notice"\n[[templates.t.channels]]\nchannel = "sms"\ntxt = "a"\n',
            'templates.t.channels[0].txt: unknown key, did you mean "text"?',
        ),
        (
            '[templates.t]\ntype = "notice"\n[[templates.t.channels]]\nchannel = "fax"\ntext = "a"\n',
            'templates.t.channels[0].channel: expected one of "email", "push", "sms", "webhook", "wechat", got "fax"',
        ),
        (
            '[templates.t]\ntype = "notice"\nline = "x"\n[[templates.t.channels]]\nchannel = "sms"\ntext = "a"\n',
            'templates.t.line: there is no line "x"',
        ),
        ('[[rules]]\nname = "a"\nkind = "repeat"\nwindow_s = 0\n', "rules[0].window_s: expected a number > 0.0, got 0"),
        ('[[rules]]\nname = "a"\nkind = "frequency"\nlimit = 1\n', "rules[0]: give either `window_s` or `per`"),
        ('[[rules]]\nname = "a"\nkind = "frequenc"\n', 'rules[0].kind: expected one of "blacklist", "company_cap"'),
        ('[[rules]]\nname = "a"\nkind = "repeat"\n' * 2, "rules[1].name: another rule is already called 'a'"),
        ('[[rules]]\nkind = "repeat"\n', "rules[0].name: is missing"),
        ('[[routes]]\nproviders = [{ id = "b" }]\n', 'routes[0].providers[0].id: there is no provider "b"'),
        ('[providers.p]\nkind = "webhook"\nchannel = "sms"\nmax_batch = 0\n', "providers.p.max_batch: expected an "),
        ('[providers.p]\nkind = "webhook"\nchannel = "sms"\n', "providers.p.options.url: "),
        ('[providers.p]\nkind = "webhok"\nchannel = "sms"\n', "providers.p.kind: unknown kind `webhok`"),
        ("[keywords.default]\nwords = [5]\n", "keywords.default.words[0]: expected text, got 5"),
        ('[keywords.default]\nwords = ["a", " ."]\n', "keywords.default.words[1]: "),
        (
            '[lines.a.uplinks]\nkeywords = ["CX"]\nurl = "https://example.com"\nsecret = "env:S"\n'
            '[lines.b.uplinks]\nkeywords = ["cx"]\nurl = "https://example.com"\nsecret = "env:S"\n',
            "lines.a.uplinks.keywords[0]: belongs to the line 'b'",
        ),
        (
            '[lines.a.uplinks]\nkeywords = ["CX"]\nurl = "https://example.com"\nsecret = "plain"\n',
            "lines.a.uplinks.secret: is a secret: write it as `env:NAME` or `file:NAME`",
        ),
        (
            '[templates.bye]\ntype = "marketing"\n[[templates.bye.channels]]\nchannel = "sms"\ntext = "bye"\n'
            '[providers.a]\nkind = "webhook"\nchannel = "sms"\noptions = { url = "https://example.com" }\n'
            'unsubscribe_answer = { template = "bye" }\n',
            "providers.a.unsubscribe_answer.template: 'bye' is of type `marketing`",
        ),
        (
            '[providers.a]\nkind = "webhook"\nchannel = "sms"\noptions = { url = "https://example.com" }\n'
            'unsubscribe_answer = { template = "bye" }\n',
            'providers.a.unsubscribe_answer.template: there is no template "bye"',
        ),
        ("[keywords.default]\nlist = []\n", "keywords.default.list: unknown key"),
        ('[[rules]]\nname = "a"\nkind = "keyword"\nlist = "x"\n', 'rules[0].list: there is no keyword list "x"'),
        ('[[rules]]\nname = "a"\nkind = "repeat"\nlines = ["x"]\n', 'rules[0].lines[0]: there is no line "x"'),
        (
            '[providers.a]\nkind = "webhook"\nchannel = "sms"\noptions = { url = "https://example.com" }\n'
            '[[routes]]\nproviders = [{ id = "a" }]\nmatch = { templates = ["x"] }\n',
            'routes[0].match.templates[0]: there is no template "x"',
        ),
    ],
)
def test_a_bad_document_stops_the_start(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, text)
    assert str(caught.value).startswith(problem)
    assert "my.toml, line " in str(caught.value)
