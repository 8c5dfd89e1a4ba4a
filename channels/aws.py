"""What the kinds `aws_sns` and `aws_eum` share: options, error words and the sorts of SMS.

Source: botocore 1.44 service models; docs.aws.amazon.com, "Common errors"; design page `wire.md`, section 5.
"""

import re
from typing import Final

from cryptography.x509 import load_pem_x509_certificate

from channels.adapter import Reply
from channels.answers import LONGEST_WORD, Verdict, by_code, parse_retry_after, receipt_of_status
from channels.options import Options, OptionsError
from channels.secret import Secret
from channels.sigv4 import Keys, Service
from dispatcher.receipt import Answer

_REGION: Final = re.compile(r"[a-z0-9-]{3,32}")
_PROMOTIONAL: Final = frozenset({"marketing", "notice_marketing"})

#: Error words that every service of AWS uses.
_COMMON: Final[dict[Answer, str]] = {
    "throttled": "Throttled Throttling ThrottlingException KMSThrottling RequestLimitExceeded TooManyRequestsException",
    "auth": """AccessDenied AccessDeniedException AuthorizationError ExpiredToken ExpiredTokenException
        IncompleteSignature IncompleteSignatureException InvalidClientTokenId InvalidSecurity InvalidSignatureException
        MissingAuthenticationToken MissingAuthenticationTokenException NotAuthorized OptInRequired RequestExpired
        SignatureDoesNotMatch UnrecognizedClientException""",
    "transient": "InternalError InternalFailure InternalServerException ServiceUnavailable ServiceUnavailableException",
}


class AwsOptions(Options, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`session_token` belongs to a temporary access key. `topic_arn`: the only SNS topic that callbacks may come from;
    without one, whatever topic knows their address. `signing_certificate`: SNS's, in PEM; without one it is got from
    where the callback says, which must be SNS's own host."""

    access_key_id: str
    secret_access_key: Secret
    region: str
    session_token: Secret | None = None
    topic_arn: str | None = None
    signing_certificate: str | None = None


def table(own: dict[Answer, str]) -> dict[str, Answer]:
    """Error word -> answer, of a service's own words and the common ones; its own win."""
    return by_code(_COMMON) | by_code(own)


def keys(options: AwsOptions) -> Keys:
    return Keys(options.access_key_id, options.secret_access_key, options.session_token)


def service(name: str, options: AwsOptions) -> Service:
    """Raises OptionsError."""
    if not _REGION.fullmatch(options.region):
        raise OptionsError([("options.region", "must be a region such as us-east-1")])
    if options.signing_certificate is not None:
        try:
            load_pem_x509_certificate(options.signing_certificate.encode())
        except ValueError:
            wanted = "must be a certificate in PEM, such as file:/etc/dispatcher/sns.pem"
            raise OptionsError([("options.signing_certificate", wanted)]) from None
    return Service(name, options.region)


def sort_of(type_: str) -> str:
    """AWS sends promotional messages at a lower priority, and some countries by their own rules."""
    return "Promotional" if type_ in _PROMOTIONAL else "Transactional"


def verdict(answer: Answer | None, code: str, reply: Reply, now_s: float) -> Verdict:
    """`answer` is what a table says of the code, None when it says nothing: then the status decides."""
    found = receipt_of_status(reply.status, reply.headers, reply.body, now_s)
    if answer is None:
        return Verdict(found.answer, code[:LONGEST_WORD] or found.code, found.retry_after_s)
    waits = answer in ("throttled", "transient")
    wait_s = parse_retry_after(reply.headers.get("retry-after"), now_s) if waits else None
    return Verdict(answer, code[:LONGEST_WORD], wait_s)
