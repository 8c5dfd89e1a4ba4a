"""The demo's company: its templates, lines, providers and users, and what happens there in two minutes."""

from collections.abc import Iterator
from datetime import datetime
from random import Random
from typing import Any, Final

SMS: Final = ("sms-red", "sms-green", "sms-blue")
PUSH: Final = ("push-east", "push-west")
#: Seven: with the shipped caps a user gets 5 SMS of a line and 30 of all, so six lines cannot reach beyond the latter.
LINES: Final = ("wallet", "loan", "shop", "card", "travel", "music", "news")
#: Somebody has to be sent too much, or no cap would be seen at work. Of the first triggers every tenth goes to one of
#: two users: to one from all lines, to the other from one line.
BUSY: Final = (("u1", None), ("u2", "shop"))
BUSY_EVERY: Final = 10
BUSY_UNTIL: Final = 20_000  # a demo of fewer triggers may not reach every cap

TEMPLATES: Final[dict[str, Any]] = {
    "login_code": {
        "type": "verification",
        "channels": [{"channel": "sms", "text": "您的验证码是{code}，5分钟内有效。", "signature": "示例"}],
    },
    "pay_ok": {
        "type": "notice",
        "level": 1,
        "channels": [
            {"channel": "sms", "text": "尊敬的{name}，订单{order}已支付{amount}元。", "signature": "示例"},
        ],
    },
    "shipped": {
        "type": "notice",
        "channels": [
            {"channel": "push", "title": "订单已发货", "body": "订单{order}已发出，预计{days}天到达。"},
            {"channel": "sms", "text": "订单{order}已发出，预计{days}天到达。", "signature": "示例"},
        ],
    },
    "repay_due": {
        "type": "repayment",
        "channels": [{"channel": "sms", "text": "您本期应还{amount}元，还款日{date}。", "signature": "示例"}],
    },
    "points": {
        "type": "notice_marketing",
        "channels": [{"channel": "push", "title": "积分到账", "body": "{name}，{points}积分已到账，可兑换好礼。"}],
    },
    "sale": {
        "type": "marketing",
        "channels": [
            {"channel": "push", "title": "今日优惠", "body": "{what}低至{percent}折", "jump": {"kind": "h5", "url": "https://example.com/s"}},
            {"channel": "sms", "text": "{what}低至{percent}折，回T退订", "signature": "示例"},
        ],
    },
}  # fmt: skip

#: template -> its share of all triggers
MIX: Final = {"login_code": 0.30, "pay_ok": 0.22, "shipped": 0.18, "repay_due": 0.08, "points": 0.09, "sale": 0.13}
_GOODS: Final = ("耳机", "跑鞋", "咖啡", "图书", "键盘", "雨伞", "毛巾", "台灯")


def noon_zone(now: datetime) -> str:
    """A zone where it is between twelve and one at `now` (UTC), so that marketing may be sent whenever the demo is run,
    and no day ends while it does."""
    return f"Etc/GMT{now.hour - 12:+d}"  # the sign of these names is the other way round


def provider(channel: str, url: str) -> dict[str, Any]:
    """A simulated provider at `url`."""
    return {
        "kind": "webhook",
        "channel": channel,
        "max_batch": 100,
        "timeout_s": 5.0,
        "options": {"url": url, "allow_private": True, "reports_by": "id"},
    }


def documents(simulator: str) -> dict[str, Any]:
    """The catalog the demo starts with; `simulator` is the providers' address."""
    providers = {name: provider("sms", f"{simulator}/p/{name}") for name in SMS}
    providers |= {name: provider("push", f"{simulator}/p/{name}") for name in PUSH}
    routes = [
        {"match": {"channels": ["sms"]}, "providers": [{"id": name, "weight": 1} for name in SMS]},
        {"match": {"channels": ["push"]}, "providers": [{"id": PUSH[0], "weight": 2}, {"id": PUSH[1], "weight": 1}]},
    ]
    return {
        "templates": TEMPLATES,
        "lines": {name: {"name": name} for name in LINES},
        "providers": providers,
        "routes": routes,
    }


def phone(number: int) -> str:
    """The SMS number of the demo's user of that number."""
    return f"+86138{number:08d}"


def users(count: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Users `u0`..; every tenth has no app, every fiftieth no phone."""
    for n in range(count):
        addresses: dict[str, Any] = {}
        if n % 50:
            addresses["sms"] = [phone(n)]
        if n % 10:
            addresses["push"] = [{"token": f"token-{n:08d}", "vendor": "fcm"}]
        yield f"u{n}", {"addresses": addresses, "timezone": "Asia/Shanghai"}


def triggers(count: int, user_count: int, seed: int) -> Iterator[dict[str, Any]]:
    """Triggers as a company's services would send them: all types, a few repeated, a few wrong."""
    rng = Random(seed)
    names, shares = list(MIX), list(MIX.values())
    last: dict[str, Any] | None = None
    for n in range(count):
        chance = rng.random()
        if last is not None and chance < 0.004:
            yield last  # a service that was not sure and sent it again
            continue
        template = rng.choices(names, shares)[0]
        user, line = _busy(n)
        trigger: dict[str, Any] = {
            "id": f"demo-{n}",
            "user": user or f"u{int(user_count * rng.random() ** 1.3)}",
            "template": template,
            "line": line or rng.choice(LINES),
            "params": _params(template, n, rng),
        }
        if chance > 0.998:
            del trigger["params"][next(iter(trigger["params"]))]  # a service with a bug
        last = trigger
        yield trigger


def _busy(n: int) -> tuple[str | None, str | None]:
    """Who this trigger has to be for, and of which line, where that matters."""
    if n >= BUSY_UNTIL or n % BUSY_EVERY:
        return None, None
    return BUSY[n // BUSY_EVERY % len(BUSY)]


def _params(template: str, n: int, rng: Random) -> dict[str, Any]:
    if template == "login_code":
        return {"code": f"{rng.randrange(1_000_000):06d}"}
    if template == "pay_ok":
        return {"name": "顾客", "order": str(n), "amount": f"{rng.randrange(100, 99_900) / 100:.2f}"}
    if template == "shipped":
        return {"order": str(n), "days": rng.randrange(1, 6)}
    if template == "repay_due":
        return {"amount": f"{rng.randrange(1_000, 900_000) / 100:.2f}", "date": f"12月{rng.randrange(1, 29)}日"}
    if template == "points":
        return {"name": "顾客", "points": rng.randrange(10, 500)}
    return {"what": rng.choice(_GOODS), "percent": rng.randrange(3, 9)}
