"""A WeChat account, from a trigger to its report in the log, and what text messages cost; the vendor is a stub."""

import json
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

from channels.wechat_envelope import signature
from tests.endtoend.conftest import Pair
from tests.endtoend.talk import notice, phone, samples
from tests.endtoend.test_reports import deliveries, put, reported
from tests.live import until

FINISHED = """<xml><FromUserName>%s</FromUserName><CreateTime>1800000000</CreateTime><MsgType>event</MsgType>
<Event>TEMPLATESENDJOBFINISH</Event><MsgID>%d</MsgID><Status>success</Status></xml>"""


@contextmanager
def wechat(sent: dict[int, dict[str, Any]], tokens: list[str]) -> Iterator[str]:
    """The vendor: it notes the tokens it gave out, and what it took by the `msgid` it answered."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            if self.path == "/cgi-bin/stable_token":
                tokens.append(f"token-{body['secret']}")
                answer: dict[str, Any] = {"access_token": tokens[-1], "expires_in": 7200}
            elif not self.path.endswith(f"/cgi-bin/message/template/send?access_token={tokens[-1]}"):
                answer = {"errcode": 40001}
            else:
                msgid = 10_000 + len(sent)
                sent[msgid] = body
                answer = {"errcode": 0, "errmsg": "ok", "msgid": msgid}
            data = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_template_message_is_reported_delivered(pair: Pair, mark: str, tmp_path: Path) -> None:
    dispatcher, _ = pair
    sent: dict[int, dict[str, Any]] = {}
    tokens: list[str] = []
    name = f"oa-{mark}"
    for secret in ("s3cret", "tok"):
        (tmp_path / secret).write_text(secret)
    routes = dispatcher.call("GET", "/v1/routes")[1]
    content = {"channel": "wechat", "template_id": "T1", "data": {"first": {"value": "paid {n}"}}}
    with wechat(sent, tokens) as url:
        secrets = {"app_secret": f"file:{tmp_path}/s3cret", "token": f"file:{tmp_path}/tok"}
        options = {"app_id": "wx1", "url": url, **secrets}
        put(dispatcher, f"/v1/templates/{name}", {"type": "notice", "channels": [content]})
        put(dispatcher, f"/v1/providers/{name}", {"kind": "wechat", "channel": "wechat", "options": options})
        put(dispatcher, "/v1/routes", [{"match": {"templates": [name]}, "providers": [{"id": name}]}])
        triggers = [
            {"id": f"{mark}-{n}", "to": {"wechat": f"openid-{mark}-{n}"}, "template": name, "line": "wallet",
             "params": {"n": n}} for n in range(5)
        ]  # fmt: skip
        status, results = dispatcher.call("POST", "/v1/triggers", triggers)
        assert status == 200
        ids = {result["messages"][0]["message"] for result in results}
        until(lambda: len(sent) == 5, "the vendor has them all")
        assert {body["client_msg_id"] for body in sent.values()} == ids
        assert sorted(body["data"]["first"]["value"] for body in sent.values()) == [f"paid {n}" for n in range(5)]
        assert tokens == ["token-s3cret"]
        reports = dispatcher.call("GET", f"/v1/providers/{name}")[1]["reports_url"]
        signed = f"timestamp=1800000000&nonce=n1&signature={signature('tok', '1800000000', 'n1')}"
        assert _call(f"{reports}?{signed}&echostr=4711") == b"4711"
        for msgid, body in sent.items():
            assert _call(f"{reports}?{signed}", FINISHED % (body["touser"], msgid)) == b"success"
        until(lambda: reported(dispatcher, name) == {"delivered": 5}, "reports of all five")
        told = {d.message: d.status for d in deliveries(dispatcher) if d.provider == name}
        assert told == dict.fromkeys(ids, "delivered")
    put(dispatcher, "/v1/routes", routes)
    assert dispatcher.call("DELETE", f"/v1/providers/{name}")[0] == 204


def _call(url: str, body: str | None = None) -> bytes:
    with urllib.request.urlopen(url, None if body is None else body.encode(), timeout=30) as response:
        read: bytes = response.read()
        return read


def test_text_messages_are_billed_as_their_provider_asks(pair: Pair, mark: str, area: int) -> None:
    dispatcher, simulated = pair
    name = f"priced-{mark}"
    simulated.create(name)
    routes = dispatcher.call("GET", "/v1/routes")[1]
    options = {"url": simulated.at(name), "allow_private": True}
    put(dispatcher, f"/v1/templates/{name}", {"type": "notice", "channels": [{"channel": "sms", "text": "{n}"}]})
    document = {"kind": "webhook", "channel": "sms", "options": options, "price": {"CN": 0.25}}
    put(dispatcher, f"/v1/providers/{name}", document)
    put(dispatcher, "/v1/routes", [{"match": {"templates": [name]}, "providers": [{"id": name}]}])
    texts = [f"{mark} {length} ".ljust(length, "x") for length in (70, 71, 135)]  # 1, 2 and 3 segments
    triggers = [notice(f"{mark}-{n}", phone(area, n), text, template=name) for n, text in enumerate(texts)]
    assert dispatcher.call("POST", "/v1/triggers", triggers)[0] == 200
    label = (("provider", name),)
    until(lambda: samples(dispatcher).get(("dispatcher_segments_total", label)) == 6, "six segments")
    assert samples(dispatcher)["dispatcher_cost_total", label] == 1.5
    put(dispatcher, "/v1/routes", routes)
    assert dispatcher.call("DELETE", f"/v1/providers/{name}")[0] == 204
