"""Amazon SNS as moto plays it: our request is understood, its words are ours, and its unsigned post is refused."""

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import Request as Post
from urllib.request import urlopen

import msgspec
import pytest
from moto.backends import get_backend
from moto.server import ThreadedMotoServer

from actors.link import Link
from channels import build
from channels.aws_sns import AwsSnsOptions
from channels.kind import Callback, Missing, NotTrue
from channels.secret import Secret
from channels.sns import CALLBACKS
from dispatcher.documents import Provider
from dispatcher.receipt import Receipt
from tests.channels.messages import message
from tests.support import run

REGION = "eu-west-1"
CERTIFICATE = Path(__file__).parents[1] / "channels" / "data" / "sns.pem"
SCOPE = f"AWS4-HMAC-SHA256 Credential=AK/20261124/{REGION}/sns/aws4_request, SignedHeaders=host, Signature=0"


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


def published(moto: str, to: str) -> list[Receipt]:
    options = {"access_key_id": "AK", "secret_access_key": "env:KEY", "region": REGION, "url": moto,
               "sender_id": "ACME"}  # fmt: skip
    provider = Provider(kind="aws_sns", channel="sms", options=options)

    async def exchange() -> list[Receipt]:
        link = Link("p1", build("p1", provider, {"KEY": "secret"}), 10.0)
        try:
            return await link.exchange([message(to=to, fields={"text": "您好 +~* & é"})], lambda: 1_800_000_000_000)
        finally:
            await link.retire()

    return run(exchange())


def test_a_message_arrives(moto: str) -> None:
    [found] = published(moto, "+8613800000000")
    sent = get_backend("sns")["123456789012"][REGION].sms_messages
    assert found.answer == "accepted"
    assert sent[found.ref] == ("+8613800000000", "您好 +~* & é")


def test_no_number_is_no_recipient(moto: str) -> None:
    [found] = published(moto, "13800abc")
    assert (found.answer, found.code) == ("invalid_recipient", "InvalidParameter")


def test_what_is_not_signed_by_aws_is_refused(moto: str) -> None:
    """moto's envelope is AWS's, with a made-up signature and a certificate that would be on AWS's own host."""
    bodies: list[bytes] = []
    came = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.end_headers()
            if b'"Notification"' in bodies[-1]:
                came.set()

        def log_message(self, *_: Any) -> None:
            pass

    def call(**form: str) -> str:
        body = urlencode({"Version": "2010-03-31", **form}).encode()
        with urlopen(Post(moto, body, {"Authorization": SCOPE}), timeout=10) as answer:
            return str(answer.read().decode())

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            arn = call(Action="CreateTopic", Name="sms").partition("<TopicArn>")[2].partition("<")[0]
            place = f"http://127.0.0.1:{server.server_port}/"
            call(Action="Subscribe", TopicArn=arn, Protocol="http", Endpoint=place)
            call(Action="Publish", TopicArn=arn, Message='{"eventType":"TEXT_DELIVERED","messageId":"m"}')
            assert came.wait(20)
        finally:
            server.shutdown()
            thread.join()
    body = next(body for body in bodies if b'"Notification"' in body)
    assert msgspec.json.decode(body)["TopicArn"] == arn
    options = AwsSnsOptions(access_key_id="AK", secret_access_key=Secret("s"), region=REGION)
    call_ = Callback("POST", "http://x/", {}, {}, body, 0.0)
    with pytest.raises(Missing) as missing:
        CALLBACKS.reports("p1", call_, options)
    fetched = {missing.value.url: CERTIFICATE.read_bytes()}
    with pytest.raises(NotTrue):
        CALLBACKS.reports("p1", msgspec.structs.replace(call_, fetched=fetched), options)
