"""Templates: a parameter is text and nothing else, whatever it holds."""

import html
from typing import Any

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import given

from dispatcher.catalog import decode_document
from dispatcher.documents import EmailContent, PushContent, SmsContent, Template, WebhookContent, WechatContent
from dispatcher.template import CompiledContent, CompiledTemplate, MissingParam, check_template, placeholders

names = st.from_regex(r"\A[a-z_]{1,3}\Z")
#: What could mean something to somebody who formats text.
traps = ["{a}", "{{", "}}", "%s", "%(a)s", "%%", "{0.__class__}", "\\1", "$a", "<b>&\"'"]
values = st.one_of(st.text(max_size=12), st.sampled_from(traps))
unbraced = st.text(alphabet=st.characters(exclude_characters="{}", codec="utf-8"), max_size=6)
plain = st.one_of(unbraced, st.sampled_from(["%", "%s", "%%", "%d%", "\\g<0>"]))
parts = st.lists(
    st.one_of(
        st.tuples(st.just("text"), plain),
        st.tuples(st.just("name"), names),
        st.tuples(st.just("brace"), st.sampled_from("{}")),
    ),
    min_size=1,
    max_size=8,
)
params = st.dictionaries(names, values, max_size=8)


def written(found: list[tuple[str, str]]) -> str:
    return "".join({"text": text, "name": f"{{{text}}}", "brace": text * 2}[what] for what, text in found)


def expected(found: list[tuple[str, str]], given_: dict[str, str]) -> str:
    return "".join(given_[text] if what == "name" else text for what, text in found)


@given(parts, params)
def test_rendering_puts_values_where_names_stand_and_reads_nothing_in_them(
    found: list[tuple[str, str]], given_: dict[str, str]
) -> None:
    content = CompiledContent(SmsContent(text=written(found), signature=written(found[:2])))
    wanted = [text for what, text in found if what == "name"]
    assert list(placeholders(written(found))) == wanted
    missing = [name for name in wanted if name not in given_]
    if missing:
        with pytest.raises(MissingParam) as error:
            content.render(given_)
        assert error.value.args[0] in missing
    else:
        fields = content.render(given_)
        assert fields == {"text": expected(found, given_), "signature": expected(found[:2], given_)}
        assert list(fields) == ["text", "signature"]


@given(st.text(max_size=20), params)
def test_any_text_is_refused_when_written_or_rendered_without_harm(text: str, given_: dict[str, str]) -> None:
    template = Template("notice", [SmsContent(text=text or "x")])
    if check_template(template):
        with pytest.raises(ValueError, match="a single"):
            CompiledTemplate("t", template)
        return
    content = CompiledTemplate("t", template).contents["sms"]
    if set(placeholders(text)) <= given_.keys():
        assert isinstance(content.render(given_)["text"], str)
    else:
        with pytest.raises(MissingParam):
            content.render(given_)


@given(values)
def test_html_is_escaped_and_nothing_else(value: str) -> None:
    content = CompiledContent(EmailContent(subject="{a}", text="{a}", html="<p>{a}{a}</p>"))
    escaped = html.escape(value)
    assert content.render({"a": value}) == {"subject": value, "text": value, "html": f"<p>{escaped}{escaped}</p>"}


@given(values, values)
def test_values_inside_structures_keep_their_shape(one: str, other: str) -> None:
    body = {"{a}": "{a}", "list": ["{b}", 1, None, {"deep": "{a}{b}"}], "n": 1.5, "flag": True}
    fields = CompiledContent(WebhookContent(body=body)).render({"a": one, "b": other})
    assert fields == {"body": {"{a}": one, "list": [other, 1, None, {"deep": one + other}], "n": 1.5, "flag": True}}


simple = st.text(alphabet="ab{}%\0", max_size=4)


@given(st.tuples(simple, simple), st.tuples(simple, simple))
def test_equal_hashes_mean_equal_fields(one: tuple[str, str], other: tuple[str, str]) -> None:
    content = CompiledContent(PushContent(title="{t}", body="{b}"))
    constant = CompiledContent(PushContent(title=_escaped(one[0]) or "-", body="{b}"))
    fields = [content.render({"t": t, "b": b}) for t, b in (one, other)]
    if "\0" not in one[0] + other[0]:
        assert (content.hash(fields[0]) == content.hash(fields[1])) == (one == other)
    if one[0]:
        assert constant.hash(constant.render({"b": one[1]})) == content.hash(fields[0])  # whatever template it is from


def _escaped(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")


@pytest.mark.parametrize(
    ("document", "path"),
    [
        ({"channels": [{"channel": "sms", "text": "a { b"}]}, "channels[0]"),
        ({"channels": [{"channel": "sms", "text": "a } b"}]}, "channels[0]"),
        ({"channels": [{"channel": "sms", "text": "{a b}"}]}, "channels[0]"),
        ({"channels": [{"channel": "sms", "text": "{}"}]}, "channels[0]"),
        ({"channels": [{"channel": "sms", "text": "{a.b}"}]}, "channels[0]"),
        ({"channels": [{"channel": "sms", "text": "{a!r}"}]}, "channels[0]"),
        ({"channels": [{"channel": "sms", "text": "x"}, {"channel": "sms", "text": "y"}]}, "channels[1].channel"),
        ({"channels": [{"channel": "email", "subject": "x"}]}, "channels[0].text"),
        ({"channels": [{"channel": "webhook", "body": {"a": [{"b": "{"}]}}]}, "channels[0]"),
    ],
)
def test_what_is_wrong_with_a_template_is_named(document: dict[str, Any], path: str) -> None:
    template = decode_document("templates", msgspec.json.encode({"type": "notice", **document}))
    [(where, _)] = check_template(template)
    assert where.startswith(path)


@pytest.mark.parametrize(
    ("content", "values_", "region", "too_long"),
    [
        (SmsContent(text="{a}"), "x" * 500, "CN", False),
        (SmsContent(text="{a}"), "x" * 501, "CN", True),
        (SmsContent(text="{a}", signature="Shop"), "x" * 494, "CN", False),
        (SmsContent(text="{a}", signature="Shop"), "x" * 495, "CN", True),
        (SmsContent(text="{a}"), "x" * 1530, "US", False),
        (SmsContent(text="{a}"), "x" * 1531, "US", True),
        (SmsContent(text="{a}"), "中" * 670, "US", False),
        (SmsContent(text="{a}"), "中" * 671, "US", True),
        (SmsContent(text="{a}"), "😀" * 330, "US", False),
        (SmsContent(text="{a}"), "😀" * 331, "US", True),
        (SmsContent(text="{a}"), "😀" * 250, "CN", False),
        (SmsContent(text="{a}"), "😀" * 251, "CN", True),
        (PushContent(title="{a}", body="x"), "x" * 100, None, False),
        (PushContent(title="{a}", body="x"), "x" * 101, None, True),
        (PushContent(title="x", body="{a}"), "x" * 1000, None, False),
        (PushContent(title="x", body="{a}"), "x" * 1001, None, True),
        (PushContent(title="x", body="{a}"), "😀" * 999, None, False),
        (PushContent(title="x" * 90, body="{a}"), "😀" * 1000, None, True),
        (WechatContent(template_id="t", data={"k": {"value": "{a}"}}), "x" * 2000, None, False),
        (WechatContent(template_id="t", data={"k": {"value": "{a}"}}), "x" * 2001, None, True),
        (EmailContent(subject="{a}", text="x"), "x" * 255, None, False),
        (EmailContent(subject="{a}", text="x"), "x" * 256, None, True),
        (EmailContent(subject="x", text="{a}"), "x" * (1 << 20), None, False),
        (EmailContent(subject="x", text="{a}"), "x" * ((1 << 20) + 1), None, True),
        (WebhookContent(body={"k": "{a}"}), "x" * (65_536 - 8), None, False),
        (WebhookContent(body={"k": "{a}"}), "x" * (65_536 - 7), None, True),
    ],
)
def test_limits_after_rendering(content: Any, values_: str, region: str | None, too_long: bool) -> None:
    compiled = CompiledContent(content)
    assert compiled.too_long(compiled.render({"a": values_}), region) is too_long
