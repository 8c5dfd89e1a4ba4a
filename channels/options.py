"""Provider options: each kind's are a Struct; any value may be a reference, values of type Secret must be one."""

from collections.abc import Mapping, Sequence
from ipaddress import ip_network
from types import UnionType
from typing import Annotated, Any, Final, TypeVar, Union, get_args, get_origin
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from channels.egress import is_private_host
from channels.secret import MASK, Secret, Unresolved, is_reference, resolve
from dispatcher.uplink import UNSUBSCRIBE_WORDS

Error = tuple[str, str]
_HIDDEN: Final = msgspec.Meta(extra={"hidden": True})
#: An address that is a credential in itself, such as a chat robot's: written as a reference, and then used as text.
SecretUrl = Annotated[str, _HIDDEN]


class OptionsError(Exception):
    """Options that cannot be used; `errors` are `(path, message)`, none of them holds a secret."""

    def __init__(self, errors: list[Error]) -> None:
        super().__init__("; ".join(f"{path}: {message}" for path, message in errors))
        self.errors = errors


class Options(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What every kind takes."""

    url: str | None = None
    ca_file: str | None = None
    callback_secret: str | None = None  # made by the dispatcher and shown to whom reads the provider; no Secret
    callback_allow: list[str] = []
    unsubscribe_words: list[str] = msgspec.field(default_factory=lambda: list(UNSUBSCRIBE_WORDS))

    def __repr__(self) -> str:
        """URLs may carry tokens, so nothing is shown."""
        return f"{type(self).__name__}()"


O = TypeVar("O", bound=Options)  # noqa: E741


def check_options(type_: type[Options], options: Mapping[str, Any]) -> list[Error]:
    """`(path, message)` for everything wrong with options as written; references are not opened."""
    fields = {field.encode_name: field for field in msgspec.structs.fields(type_)}
    errors = [(f"options.{name}", "unknown option") for name in options if name not in fields]
    for name, field in fields.items():
        if name in options:
            errors += _check_value(f"options.{name}", options[name], field.type)
        elif field.required:
            errors.append((f"options.{name}", "is required"))
    return errors or _check_common(options, "allow_private" in fields)


def _check_value(path: str, value: Any, type_: Any) -> list[Error]:
    if value is None:
        return [] if type(None) in get_args(type_) else [(path, "must not be null")]
    if is_reference(value):
        return [(path, f"`{value}` needs a name after it")] if value.endswith(":") and value.count(":") == 1 else []
    if is_hidden(type_):
        return [(path, "is a secret: write it as `env:NAME` or `file:NAME`")]
    try:
        msgspec.convert(value, type_)
    except msgspec.ValidationError as error:
        return [(path, str(error))]
    return []


def _check_common(options: Mapping[str, Any], guarded: bool) -> list[Error]:
    """`guarded`: private addresses are refused unless `allow_private` says otherwise. Where a kind has no such option,
    `url` replaces a vendor's own address, by a proxy of the house say."""
    errors: list[Error] = []
    url = options.get("url")
    if isinstance(url, str) and not is_reference(url):
        private = options.get("allow_private") if guarded else True
        errors += [("options.url", why) for why in url_faults(url, private is True or is_reference(private))]
    for i, network in enumerate(_listed(options.get("callback_allow"))):
        try:
            ip_network(network, strict=False)
        except ValueError:
            errors.append((f"options.callback_allow[{i}]", "must be an address or a network such as 10.0.0.0/8"))
    return errors


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def url_faults(url: str, allow_private: bool) -> list[str]:
    """What is wrong with a provider's URL as written; a public name may still resolve to a private address."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return ["must be an http or https URL"]
    if parts.scheme not in ("http", "https") or not host or not url.isascii() or any(c <= " " for c in url):
        return ["must be an http or https URL, percent-encoded"]
    if parts.username is not None or parts.password is not None:
        return ["must not carry credentials"]
    if not allow_private and is_private_host(host):
        return ["is a loopback or private address: set `allow_private` if that is meant"]
    return []


def is_secret(type_: Any) -> bool:
    """Whether an option's type is Secret, or Secret or null."""
    return type_ is Secret or (get_origin(type_) in (Union, UnionType) and Secret in get_args(type_))


def is_hidden(type_: Any) -> bool:
    """Whether an option's value must be a reference and is never shown."""
    return is_secret(type_) or _HIDDEN in get_args(type_)


def read_options(type_: type[O], options: Mapping[str, Any], environ: Mapping[str, str]) -> O:
    """The options with every reference opened. Raises OptionsError."""
    errors = check_options(type_, options)
    fields = {field.encode_name: field for field in msgspec.structs.fields(type_)}  # `from` is no name in Python
    types = {name: field.type for name, field in fields.items()}
    values: dict[str, Any] = {}
    for name, value in options.items() if not errors else ():
        try:
            values[name] = _read_value(value, types[name], environ)
        except Unresolved as unresolved:
            errors.append((f"options.{name}", str(unresolved)))
        except msgspec.ValidationError:  # its text may show what was behind the reference
            errors.append((f"options.{name}", f"`{value}` does not hold a value of the right type"))
    errors = errors or _check_common(values, "allow_private" in types)
    if errors:
        raise OptionsError(errors)
    return type_(**{fields[name].name: value for name, value in values.items()})


def _read_value(value: Any, type_: Any, environ: Mapping[str, str]) -> Any:
    if not is_reference(value):
        return value
    text = resolve(value, environ)
    if is_secret(type_):
        return Secret(text)
    if get_origin(type_) is list:
        return [part.strip() for part in text.split(",")]
    return msgspec.convert(text, type_, strict=False)


def unsubscribe_words(options: Mapping[str, Any], environ: Mapping[str, str]) -> Sequence[str]:
    """A provider's, from its options as written; the usual ones where they say nothing, or what cannot be read."""
    written = options.get("unsubscribe_words")
    try:
        words = _read_value(written, list[str], environ)
    except Unresolved:
        return UNSUBSCRIBE_WORDS
    return words if isinstance(words, list) else UNSUBSCRIBE_WORDS


def masked(type_: type[Options] | None, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options as they may be shown: references as written, so that they can be put back; other secrets masked."""
    types = {field.encode_name: field.type for field in msgspec.structs.fields(type_)} if type_ is not None else {}
    return {
        name: value if is_reference(value) or (name in types and not is_hidden(types[name])) else MASK
        for name, value in options.items()
    }
