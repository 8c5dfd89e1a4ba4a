"""A mail server for tests, aiosmtpd's: it answers as it is told, and keeps what it got."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from channels.secret import Secret
from channels.smtp import SmtpOptions, _open
from channels.smtp.courier import SmtpCourier
from tests.support import until

DATA = Path(__file__).parent.parent / "data"
PASSWORD = "hush-hush-hush"


class Post:
    """`says` answers each mail, by its count from 1; it may wait, cut or write what it likes. `rcpt` and `sender`
    answer those steps."""

    def __init__(self) -> None:
        self.port = 0
        self.mails: list[Envelope] = []
        self.servers: list[SMTP] = []
        self.connections = 0
        self.logins: list[tuple[str, bool]] = []
        self.tls: list[bool] = []
        self.says: Callable[[int, SMTP], Awaitable[str]] = self.take
        self.rcpt: Callable[[str], str] = lambda address: "250 2.1.5 Ok"
        self.sender: Callable[[str], str] = lambda address: "250 2.1.0 Ok"

    async def take(self, n: int, server: SMTP) -> str:
        return f"250 2.0.0 Ok: queued as Q{n:04}"

    async def handle_MAIL(self, server: SMTP, session: Session, envelope: Envelope, to: str, options: list[str]) -> str:
        said = self.sender(to)
        if said.startswith("2"):
            envelope.mail_from = to
            envelope.mail_options.extend(options)
        return said

    async def handle_RCPT(self, server: SMTP, session: Session, envelope: Envelope, to: str, options: list[str]) -> str:
        said = self.rcpt(to)
        if said.startswith("2"):
            envelope.rcpt_tos.append(to)
        return said

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        self.mails.append(envelope)
        self.tls.append(server.transport is not None and server.transport.get_extra_info("sslcontext") is not None)
        return await self.says(len(self.mails), server)

    def authenticate(self, server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: Any) -> AuthResult:
        assert isinstance(data, LoginPassword)
        good = data.password.decode() == PASSWORD
        self.logins.append((data.login.decode(), good))
        return AuthResult(success=good, handled=False)

    def cut(self) -> None:
        for server in self.servers:
            if server.transport is not None:
                server.transport.abort()

    @property
    def open(self) -> int:
        return sum(server.transport is not None for server in self.servers)


@asynccontextmanager
async def post(tls: str = "none", auth: bool = False, **settings: Any) -> AsyncIterator[Post]:
    one = Post()
    context = None
    if tls != "none":
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(DATA / "server.pem")
    if auth:
        settings |= {"authenticator": one.authenticate, "auth_require_tls": tls == "starttls"}
    if tls == "starttls":
        settings |= {"tls_context": context, "require_starttls": True}

    def serve() -> SMTP:
        server = SMTP(one, hostname="post", loop=asyncio.get_running_loop(), ident="post", **settings)
        one.servers.append(server)
        one.connections += 1
        return server

    listening = await asyncio.get_running_loop().create_server(
        serve, "127.0.0.1", 0, ssl=context if tls == "tls" else None
    )
    one.port = listening.sockets[0].getsockname()[1]
    try:
        yield one
    finally:
        one.cut()
        listening.close()
        await until(lambda: one.open == 0, "all connections are over")


@asynccontextmanager
async def courier(port: int, tls: str = "none", concurrency: int = 10, **changes: Any) -> AsyncIterator[SmtpCourier]:
    options: dict[str, Any] = {"host": "localhost" if tls != "none" else "127.0.0.1", "port": port, "tls": tls}
    options |= {"from_": "Shop <shop@example.com>", "ca_file": str(DATA / "ca.pem") if tls != "none" else None}
    made = _open("p1", SmtpOptions(**{**options, **changes}), concurrency)
    try:
        yield made
    finally:
        await made.close()


LOGIN = {"username": "us", "password": Secret(PASSWORD)}
