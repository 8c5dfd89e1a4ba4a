"""Templates: checked when they are written, compiled once, rendered for each message.

Placeholders are plain `{name}`; `{{` and `}}` are braces. Nothing else has a meaning, so a parameter can never reach
further than its own text; in an e-mail's `html` it is escaped.
"""

import html
import re
from collections.abc import Callable, Iterator, Mapping
from operator import itemgetter
from typing import Any, Final

import msgspec

from dispatcher.documents import Content, EmailContent, Template
from dispatcher.ident import content_hash
from dispatcher.kinds import TYPES
from dispatcher.segments import MAINLAND, MOST_MAINLAND_UNITS, segments, signed, units

_TOKEN: Final = re.compile(r"\{\{|\}\}|\{(\w+)\}|[{}]")
_Render = Callable[[Mapping[str, str]], Any]
Fields = dict[str, Any]


class MissingParam(Exception):
    """A placeholder has no value; `args[0]` is its name."""


def placeholders(text: str) -> Iterator[str]:
    """The names a text refers to. Raises ValueError for a brace that stands alone."""
    for match in _TOKEN.finditer(text):
        if match.group(1) is not None:
            yield match.group(1)
        elif len(match.group()) == 1:
            raise ValueError(f"a single {match.group()!r} at {match.start()}: write {{name}} or double the brace")


def _compile_text(text: str, escape: Callable[[str], str] | None = None) -> _Render:
    names = list(placeholders(text))
    pattern = _TOKEN.sub(lambda m: "%s" if m.group(1) else m.group()[0], text.replace("%", "%%"))
    if not names:
        constant = pattern.replace("%%", "%")
        return lambda params: constant
    if escape is not None:
        return lambda params: pattern % tuple([escape(params[name]) for name in names])
    values = itemgetter(*names)  # one name gives the value itself, several a tuple: both are what % takes
    return lambda params: pattern % values(params)


def _compile(value: Any, escape: Callable[[str], str] | None = None) -> _Render:
    if isinstance(value, str):
        return _compile_text(value, escape)
    if isinstance(value, dict):
        parts = [(key, _compile(inner)) for key, inner in value.items()]
        return lambda params: {key: render(params) for key, render in parts}
    if isinstance(value, list):
        items = [_compile(inner) for inner in value]
        return lambda params: [render(params) for render in items]
    return lambda params: value


def _varies(value: Any) -> bool:
    """Whether anything in a content's field depends on parameters."""
    if isinstance(value, str):
        return next(placeholders(value), None) is not None
    if isinstance(value, dict):
        return any(_varies(inner) for inner in value.values())
    return isinstance(value, list) and any(_varies(inner) for inner in value)


def _fields(content: Content) -> dict[str, Any]:
    fields = {key: value for key, value in msgspec.to_builtins(content).items() if key != "channel"}
    return {key: value for key, value in fields.items() if value is not None}


class CompiledContent:
    """One channel of a template, ready to render."""

    __slots__ = ("_constant", "_parts", "_plain", "_separators", "channel", "too_long")

    def __init__(self, content: Content) -> None:
        self.channel = str(content.__struct_config__.tag)
        fields = _fields(content)
        # What has no placeholder is rendered once; the others keep its order, so that equal contents hash equally.
        self._constant = {
            name: _compile(value)({}) if not _varies(value) else "" for name, value in fields.items()
        }
        self._parts = [
            (name, _compile(value, html.escape if name == "html" else None))
            for name, value in fields.items()
            if _varies(value)
        ]
        self._plain = "\0".join(fields) if all(isinstance(value, str) for value in fields.values()) else None
        self._separators = 2 * len(fields) - 1
        self.too_long = _LIMITS[self.channel]

    def render(self, params: Mapping[str, str]) -> Fields:
        """The rendered fields. Raises MissingParam."""
        fields = self._constant.copy()
        try:
            for name, render in self._parts:
                fields[name] = render(params)
        except KeyError as missing:
            raise MissingParam(missing.args[0]) from None
        return fields

    def hash(self, fields: Fields) -> int:
        """40 bits that are equal when all rendered fields are equal, whatever template they came from."""
        if self._plain is not None:
            joined = "\0".join((self._plain, *fields.values()))
            if joined.count("\0") == self._separators:  # no value brings one of its own
                return content_hash(joined.encode())
        return content_hash(msgspec.json.encode(fields, order="sorted"))


class CompiledTemplate:
    """A template with everything a decision needs at hand."""

    __slots__ = ("contents", "document", "id", "level", "line", "mode", "status", "ttl_s", "type", "vendor")

    def __init__(self, id_: str, document: Template) -> None:
        self.id = id_
        self.document = document
        self.type: str = document.type
        self.level: int = document.level or TYPES[document.type].level
        self.ttl_s = TYPES[document.type].ttl_s
        self.mode = document.mode
        self.status = document.status
        self.line = document.line
        #: `Message.vendor`, one for all of its messages.
        self.vendor = {kind: [known.code, known.params] for kind, known in document.vendor.items()} or None
        self.contents = {str(c.__struct_config__.tag): CompiledContent(c) for c in document.channels}


def check_template(document: Template) -> list[tuple[str, str]]:
    """`(path, message)` for what the types cannot say: placeholders, one content a channel, an e-mail with a body."""
    errors = []
    seen: set[str] = set()
    for i, content in enumerate(document.channels):
        channel = str(content.__struct_config__.tag)
        if channel in seen:
            errors.append((f"channels[{i}].channel", f"{channel} is listed twice"))
        seen.add(channel)
        if isinstance(content, EmailContent) and content.text is None and content.html is None:
            errors.append((f"channels[{i}].text", "an e-mail needs `text` or `html`"))
        errors += _check_text(f"channels[{i}]", _fields(content))
    return errors


def _check_text(path: str, value: Any) -> list[tuple[str, str]]:
    if isinstance(value, str):
        try:
            list(placeholders(value))
        except ValueError as error:
            return [(path, str(error))]
    elif isinstance(value, dict):
        return [error for key, inner in value.items() for error in _check_text(f"{path}.{key}", inner)]
    elif isinstance(value, list):
        return [error for i, inner in enumerate(value) for error in _check_text(f"{path}[{i}]", inner)]
    return []


def _sms_too_long(fields: Fields, region: str | None) -> bool:
    text, signature = fields["text"], fields.get("signature")
    length = len(text) + (len(signature) + 2 if signature else 0)
    if region == MAINLAND:
        most = MOST_MAINLAND_UNITS
        return length > most or (length > most // 2 and units(signed(text, signature, region)) > most)
    # Ten segments hold 330 characters of any kind: 33 surrogate pairs each, as none is cut.
    return length > 330 and segments(signed(text, signature, region)) > 10


def _push_too_long(fields: Fields, region: str | None) -> bool:
    title, body = fields["title"], fields["body"]
    if len(title) > 100 or len(body) > 1_000:
        return True
    return len(title) + len(body) > 900 and len(msgspec.json.encode(fields)) > 4_096


def _wechat_too_long(fields: Fields, region: str | None) -> bool:
    return any(len(text) > 2_000 for text in _texts(fields["data"]))


def _email_too_long(fields: Fields, region: str | None) -> bool:
    size = sum(len(fields.get(name, "").encode()) for name in ("text", "html"))
    return len(fields["subject"]) > 255 or size > 1024 * 1024


def _webhook_too_long(fields: Fields, region: str | None) -> bool:
    return len(msgspec.json.encode(fields["body"])) > 64 * 1024


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)


#: Content limits after rendering (rules.md, "Rejections"), by channel.
_LIMITS: Final[dict[str, Callable[[Fields, str | None], bool]]] = {
    "sms": _sms_too_long,
    "push": _push_too_long,
    "wechat": _wechat_too_long,
    "email": _email_too_long,
    "webhook": _webhook_too_long,
}
