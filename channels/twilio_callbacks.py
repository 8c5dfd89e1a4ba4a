"""What Twilio posts back: status callbacks, and messages to our numbers. Both are signed forms.

Source: design page `wire.md`, section 4; twilio.com, "Webhooks security"; PyPI twilio 9.13 `request_validator.py`.
"""

import base64
from collections.abc import Iterable, Mapping
from hmac import compare_digest, digest
from typing import Final
from urllib.parse import parse_qs, urlsplit
from xml.sax.saxutils import escape

import msgspec

from channels.answers import LONGEST_WORD
from channels.kind import Callback, Heard, NotTrue
from channels.options import Options
from channels.secret import Secret
from dispatcher.ident import place_of
from dispatcher.report import Report, ReportStatus, Uplink
from dispatcher.uplink import unsubscribes

_STATUSES: Final[dict[str, ReportStatus]] = {
    "sent": "sent",
    "delivered": "delivered",
    "read": "delivered",
    "partially_delivered": "delivered",
    "undelivered": "undelivered",
    "failed": "undelivered",
    "canceled": "undelivered",
}
#: Unknown handset, landline; and what the API calls no mobile number when it is asked.
_DEAD: Final = frozenset({"30005", "30006", "21211", "21214", "21217", "21614"})
_MOST_FIELDS: Final = 200
_LONGEST_TEXT: Final = 4_096
_TWIML: Final = b'<?xml version="1.0" encoding="UTF-8"?><Response/>'
_HEARD: Final = Heard(body=_TWIML, content_type="text/xml")
_REFUSED: Final = Heard(status=400, content_type="text/plain")

Form = Mapping[str, list[str]]


class TwilioOptions(Options, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`public_url`: how Twilio reaches our HTTP server, `https://host`, with a proxy's path before `/v1` if any.
    `unsubscribe_answer` is texted back to whoever unsubscribes."""

    account_sid: str
    auth_token: Secret
    from_: str | None = msgspec.field(name="from", default=None)
    messaging_service_sid: str | None = None
    public_url: str | None = None
    unsubscribe_answer: str | None = None


class TwilioCallbacks:
    """Both addresses take both: a number's and a messaging service's callbacks are set up apart, by hand."""

    def reports(self, provider: str, call: Callback, options: Options) -> Heard:
        """A message's status."""
        return _heard(provider, call, options)

    def uplinks(self, provider: str, call: Callback, options: Options) -> Heard:
        """A message to one of our numbers. The answer is TwiML that says nothing."""
        return _heard(provider, call, options)


def _heard(provider: str, call: Callback, options: Options) -> Heard:
    assert isinstance(options, TwilioOptions)
    posted = _form(call.body.decode("utf-8", "replace")) if call.method == "POST" else {}
    if posted is None:
        return _REFUSED
    url = _url(call.url, options.public_url)
    given = call.headers.get("x-twilio-signature", "").encode("utf-8", "surrogatepass")
    wanted = [signature(options.auth_token.reveal(), one, posted) for one in _with_and_without_port(url)]
    if not any([compare_digest(one.encode(), given) for one in wanted]):
        raise NotTrue
    fields = {name: values[0] for name, values in posted.items()} if call.method == "POST" else call.query
    sid = _word(fields.get("MessageSid") or fields.get("SmsSid"))
    status = fields.get("MessageStatus") or fields.get("SmsStatus")
    if sid is None or status is None:
        return _REFUSED
    if status == "received":
        return _uplink(provider, sid, fields, options)
    return _report(provider, sid, status, fields, call.query.get("id", ""))


def _report(provider: str, sid: str, status: str, fields: Mapping[str, str], id_: str) -> Heard:
    known = _STATUSES.get(status)
    if known is None:  # it waits, or it is a word to come
        return _HEARD
    ours = place_of(id_) is not None
    code = _word(fields.get("ErrorCode"))
    report = Report(
        provider, known, id_ if ours else None, None if ours else sid, _word(fields.get("To")), code or _word(status),
        dead=known == "undelivered" and code in _DEAD,
    )  # fmt: skip
    return Heard([report], _TWIML, "text/xml")


def _uplink(provider: str, sid: str, fields: Mapping[str, str], options: TwilioOptions) -> Heard:
    sender = _word(fields.get("From"))
    if sender is None:
        return _REFUSED
    text = fields.get("Body", "")[:_LONGEST_TEXT]  # empty where only a picture was sent
    uplink = Uplink(provider, "", sender, text, _word(fields.get("To")) or "", key=sid)
    return Heard([uplink], _answer(text, options), "text/xml")


def _answer(text: str, options: TwilioOptions) -> bytes:
    """TwiML, which says nothing unless it is set to confirm an unsubscription."""
    if options.unsubscribe_answer is None or not unsubscribes(text, options.unsubscribe_words):
        return _TWIML
    message = f"<Message>{escape(options.unsubscribe_answer)}</Message>".encode()
    return _TWIML.replace(b"<Response/>", b"<Response>" + message + b"</Response>")


def signature(token: str, url: str, posted: Form) -> str:
    """Base64 of HMAC-SHA1 over the URL and every field, by name, values of one name once each and in order."""
    text = url + "".join([name + value for name in sorted(posted) for value in sorted(set(posted[name]))])
    return base64.b64encode(digest(token.encode(), text.encode("utf-8", "surrogatepass"), "sha1")).decode()


def _url(url: str, public_url: str | None) -> str:
    """The address as Twilio knows it, whatever proxies made of it."""
    if not public_url:
        return url
    return f"{public_url.rstrip('/')}/v1/{url.partition('/v1/')[2]}"


def _with_and_without_port(url: str) -> Iterable[str]:
    """Twilio signs either."""
    try:
        split = urlsplit(url)
        port = split.port
    except ValueError:
        return (url,)
    bare = split.netloc.removesuffix(f":{port}")
    full = f"{bare}:{port or (443 if split.scheme == 'https' else 80)}"
    return [url.replace(f"//{split.netloc}", f"//{host}", 1) for host in (bare, full)]


def _form(body: str) -> Form | None:
    try:
        return parse_qs(body, keep_blank_values=True, max_num_fields=_MOST_FIELDS)
    except ValueError:
        return None


def _word(value: str | None) -> str | None:
    return value[:LONGEST_WORD] or None if value else None
