"""Our AWS signatures against botocore's, byte for byte."""

from datetime import UTC, datetime
from typing import Any

import botocore.auth
import pytest
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st

from channels.secret import Secret
from channels.sigv4 import Keys, Service, host_of, signed

NOW_S = 1_800_000_000
SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
ours = {"authorization", "host", "x-amz-date", "x-amz-security-token"}

_texts = st.text(max_size=40) | st.sampled_from(["a b+c~d*e", "您好，世界", "é & = % / ?", "\U0001f600"])
_values = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=20)
_paths = st.sampled_from(["", "/", "/a", "/a%20b/", "/~x*y", "/%E6%82%A8", "/a+b,c"])
_queries = st.sampled_from(["", "?", "?b=2&a=1", "?a=%20x&a=", "?x", "?a=1&A=2&a=0"])
_hosts = st.sampled_from(
    ["https://sns.us-east-1.amazonaws.com", "http://127.0.0.1:5000", "https://aws.example.com:443", "http://[::1]:80"]
)


@pytest.fixture(autouse=True)
def _clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda *_: datetime.fromtimestamp(NOW_S, UTC))


def theirs(url: str, headers: dict[str, str], body: bytes, token: str | None, service: str, region: str) -> Any:
    request = AWSRequest("POST", url, headers, body)
    request.context["timestamp"] = ""
    botocore.auth.SigV4Auth(Credentials("AKIA1", SECRET, token), service, region).add_auth(request)
    return request.headers


@given(
    url=st.builds(lambda *parts: "".join(parts), _hosts, _paths, _queries),
    headers=st.dictionaries(st.sampled_from(["content-type", "x-amz-target", "amz-sdk-request"]), _values),
    body=_texts.map(lambda text: text.encode("utf-8", "surrogatepass")) | st.binary(max_size=40),
    token=st.none() | st.just("IQoJb3JpZ2luX2VjEJr//token=="),
    service=st.sampled_from(["sns", "sms-voice"]),
    region=st.sampled_from(["us-east-1", "eu-west-1"]),
)
def test_botocore_signs_alike(
    url: str, headers: dict[str, str], body: bytes, token: str | None, service: str, region: str
) -> None:
    keys = Keys("AKIA1", Secret(SECRET), None if token is None else Secret(token))
    found = signed("POST", url, headers, body, keys, Service(service, region), NOW_S + 0.9)
    wanted = theirs(url, headers, body, token, service, region)
    assert found["authorization"] == wanted["Authorization"]
    assert found["x-amz-date"] == wanted["X-Amz-Date"]
    assert found.get("x-amz-security-token") == wanted["X-Amz-Security-Token"]
    assert found.keys() - ours == headers.keys()


def test_the_documents_example() -> None:
    """`get-vanilla-query-order-key-case` of AWS's published Signature Version 4 test suite."""
    keys = Keys("AKIDEXAMPLE", Secret(SECRET))
    at_s = datetime(2015, 8, 30, 12, 36, tzinfo=UTC).timestamp()
    url = "https://example.amazonaws.com/?Param2=value2&Param1=value1"
    found = signed("GET", url, {}, b"", keys, Service("service", "us-east-1"), at_s)
    assert found["authorization"] == (
        "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, "
        "SignedHeaders=host;x-amz-date, Signature=b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500"
    )


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://a.example.com/x", "a.example.com"),
        ("https://a.example.com:443", "a.example.com"),
        ("http://a.example.com:443", "a.example.com:443"),
        ("http://[::1]:8080/", "[::1]:8080"),
    ],
)
def test_host_has_the_port_where_it_is_not_the_default(url: str, host: str) -> None:
    assert host_of(url) == host


def test_keys_are_not_shown() -> None:
    assert SECRET not in repr(Keys("AKIA1", Secret(SECRET), Secret(SECRET)))
