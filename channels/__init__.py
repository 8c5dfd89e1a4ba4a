"""Provider kinds. A new kind is one file and one row in `ADAPTERS`; the contract tests then cover it."""

from collections.abc import Mapping
from typing import Any, Final

from channels import (
    aliyun,
    apns,
    aws_eum,
    aws_sns,
    dingtalk,
    fcm,
    feishu,
    getui,
    huawei_push,
    huawei_sms,
    jpush,
    smpp,
    smtp,
    tencent,
    twilio,
    webhook,
    wechat,
    wecom,
    xiaomi,
)
from channels.adapter import Adapter
from channels.courier import Courier
from channels.kind import Callbacks, Kind
from channels.lean import LeanTransport
from channels.options import Error, Options, OptionsError, check_options, masked, read_options
from channels.poll import AT_ONCE, Polled
from channels.transport import Transport
from dispatcher.documents import Provider

__all__ = ["ADAPTERS", "OptionsError", "Way", "build", "callbacks", "check", "mask"]

#: An adapter and the connections for its requests, or a courier that has its own.
Way = tuple[Adapter, Transport] | Courier

ADAPTERS: Final[dict[str, Kind]] = {
    "aliyun": aliyun.KIND,
    "apns": apns.KIND,
    "aws_eum": aws_eum.KIND,
    "aws_sns": aws_sns.KIND,
    "dingtalk": dingtalk.KIND,
    "fcm": fcm.KIND,
    "feishu": feishu.KIND,
    "getui": getui.KIND,
    "huawei_push": huawei_push.KIND,
    "huawei_sms": huawei_sms.KIND,
    "jpush": jpush.KIND,
    "smpp": smpp.KIND,
    "smtp": smtp.KIND,
    "tencent": tencent.KIND,
    "twilio": twilio.KIND,
    "webhook": webhook.KIND,
    "wechat": wechat.KIND,
    "wecom": wecom.KIND,
    "wecom_robot": wecom.ROBOT,
    "xiaomi": xiaomi.KIND,
}


def check(provider: Provider) -> list[Error]:
    """`(path, message)` for what the types cannot say: the kind, its channels, its options. Opens no reference."""
    kind = ADAPTERS.get(provider.kind)
    if kind is None:
        return [("kind", f"unknown kind `{provider.kind}`: one of {', '.join(sorted(ADAPTERS))}")]
    errors: list[Error] = []
    if provider.channel not in kind.channels:
        errors.append(("channel", f"`{provider.kind}` delivers {', '.join(kind.channels)}"))
    if provider.max_batch > kind.most:
        errors.append(("max_batch", f"`{provider.kind}` takes at most {kind.most} a request"))
    if provider.unsubscribe_answer is not None and provider.options.get("unsubscribe_answer") is not None:
        errors.append(("unsubscribe_answer", "`options.unsubscribe_answer` answers already: one of the two"))
    return errors + check_options(kind.options, provider.options)


def mask(options: Mapping[str, Any], kind: str = "webhook") -> dict[str, Any]:
    """Options as a reader of the catalog may see them: `env:` and `file:` as written, any other secret as `***`."""
    found = ADAPTERS.get(kind)
    return masked(found.options if found is not None else None, options)


def build(provider_id: str, provider: Provider, environ: Mapping[str, str]) -> Way:
    """The way to the provider, with every `env:` and `file:` opened. Raises OptionsError."""
    kind = ADAPTERS[provider.kind]
    options = read_options(kind.options, provider.options, environ)
    if kind.open is not None:
        return kind.open(provider_id, options, provider.concurrency)
    assert kind.build is not None
    adapter = kind.build(provider_id, options)
    allow_private = bool(getattr(options, "allow_private", True))  # see `channels.options`
    places = provider.concurrency + (AT_ONCE if isinstance(adapter, Polled) else 0)
    try:
        return adapter, LeanTransport(places, allow_private, options.ca_file)
    except OSError as error:  # ssl's own errors are OSErrors too
        raise OptionsError([("options.ca_file", f"cannot be used: {error.strerror or error}")]) from None


def callbacks(provider: Provider, environ: Mapping[str, str]) -> tuple[Callbacks | None, Options]:
    """How to read what the vendor posts (None: it posts nothing), and the options it takes for that, opened. Raises
    OptionsError."""
    kind = ADAPTERS.get(provider.kind)
    if kind is None:
        raise OptionsError([("kind", f"unknown kind `{provider.kind}`")])
    return kind.callbacks, read_options(kind.options, provider.options, environ)
