"""One message by hand, to try a provider: what it says, and what each answer to it means. Pure."""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from dispatcher.address import normalise, region_of
from dispatcher.ident import message_id, time_prefix, trigger_key
from dispatcher.kinds import TYPES, lane_of
from dispatcher.message import Message
from dispatcher.receipt import Answer
from dispatcher.template import CompiledTemplate, MissingParam

LINE: Final = "doctor"
_TEXT: Final = "A test of the message dispatcher; nothing is to be done."
#: What is sent where no template is named. Channel `wechat` knows none of its own.
PLAIN: Final[dict[str, dict[str, Any]]] = {
    "sms": {"text": _TEXT},
    "push": {"title": "Test", "body": _TEXT},
    "email": {"subject": "Test", "text": _TEXT},
    "webhook": {"body": {"text": _TEXT}},
}


class Untriable(Exception):
    """There is no such message; `args[0]` says what to mend."""


class Meaning(NamedTuple):
    """What an answer says, and what to do about it."""

    means: str
    mend: str


#: Source: architecture section 6.
MEANINGS: Final[dict[Answer, Meaning]] = {
    "accepted": Meaning(
        "the provider has taken it",
        "nothing; see whether it arrives. A dispatcher that runs counts its delivery report as unmatched",
    ),
    "invalid_recipient": Meaning(
        "the provider says that this address is dead; a dispatcher would not try it again",
        "check --to: its spelling and country code, or whether the token is one of this app at this vendor",
    ),
    "rejected": Meaning(
        "the provider does not take this content, template or signature, now or later",
        "look the code up at the vendor; where it wants a template of its own, --template T --param k=v with a "
        "template that names it under `vendor`",
    ),
    "throttled": Meaning(
        "too much or too fast for this account or this address; a dispatcher would send it later",
        "wait a while; compare rate_per_s with the account's quota, and mind limits by the number and day",
    ),
    "transient": Meaning(
        "it was surely not sent: the provider was not reached, or is out of order",
        "check the address in options (url, host, port), DNS, proxies and firewalls, then the vendor's status page",
    ),
    "auth": Meaning(
        "the account is refused; a dispatcher would take this provider out and alarm",
        "check what the references in options lead to, whether the account is paid and active, and whether the vendor "
        "lets this machine's address in",
    ),
    "unknown": Meaning(
        "it was written and no answer came that can be read: it may arrive or not",
        "see whether it arrives before you try again; check that options.url is the vendor's, raise timeout_s for a "
        "slow one",
    ),
}


class Trial(NamedTuple):
    """What is wanted: to whom, by which channel, which words. `template` None: `PLAIN` ones. `placed`: the provider
    has its own address, as chat robots do, and `to` is not used."""

    channel: str
    to: str
    template: CompiledTemplate | None
    params: Mapping[str, str]
    extra: dict[str, str] | None = None
    placed: bool = False


def message_of(trial: Trial, region: str, now_ms: int, salt: str) -> Message:
    """The message; another `salt` gives another id. Raises Untriable."""
    to = trial.to if trial.placed else normalise(trial.channel, trial.to, region)
    if to is None:
        raise Untriable(f"--to: {trial.to!r} is no address of channel `{trial.channel}`")
    where = None if trial.placed else region_of(trial.channel, to)
    fields = _fields(trial, where)
    template = trial.template
    type_ = "notice" if template is None else template.type
    level = TYPES[type_].level if template is None else template.level
    ttl_s = TYPES[type_].ttl_s if template is None else template.ttl_s
    key, characters = trigger_key(LINE, salt, to)
    return Message(
        message_id(time_prefix(now_ms), characters, 0, trial.channel), f"doctor-{salt}", to, trial.channel, to, type_,
        level, lane_of(type_, level), LINE, "test" if template is None else template.id, fields, dict(trial.params),
        now_ms, now_ms, now_ms + round(ttl_s * 1000), where, extra=trial.extra, key=key,
        vendor=None if template is None else template.vendor,
    )  # fmt: skip


def _fields(trial: Trial, region: str | None) -> dict[str, Any]:
    if trial.template is None:
        if trial.params:
            raise Untriable("--param: only a template has parameters: --template T")
        if trial.channel not in PLAIN:
            raise Untriable(f"--template: channel `{trial.channel}` needs one, for the vendor's template id")
        return PLAIN[trial.channel]
    content = trial.template.contents.get(trial.channel)
    if content is None:
        raise Untriable(f"--template: {trial.template.id!r} has nothing for channel `{trial.channel}`")
    try:
        fields = content.render(trial.params)
    except MissingParam as missing:
        raise Untriable(f"--param: {trial.template.id!r} wants {missing.args[0]!r}: --param k=v") from None
    if content.too_long(fields, region):
        raise Untriable(f"--param: {trial.template.id!r} is too long with these")
    return fields
