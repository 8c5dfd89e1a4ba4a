"""Connections to one mail server: a few, each for one mail at a time, kept for the next."""

import asyncio
import contextlib
from ssl import SSLContext
from typing import Final, cast

from aiosmtplib import SMTP, SMTPException, SMTPResponseException
from msgspec import Struct

from channels.adapter import NotWritten
from channels.address import Addresses
from channels.answers import Verdict
from channels.secret import Secret
from channels.smtp.status import verdict
from channels.transport import PHASES

#: Mails over one connection at most: servers end longer ones in their own way.
MOST_MAILS: Final = 100
#: A connection that was idle for longer is not used again: the server may be about to end it.
_IDLE_S: Final = 20.0


class Account(Struct, frozen=True, kw_only=True):
    """Where, and as whom. `ourselves`: what EHLO says."""

    host: str
    port: int
    ourselves: str
    username: str | None = None
    password: Secret | None = None
    tls: SSLContext | None = None
    starttls: bool = False

    def __repr__(self) -> str:
        return f"Account({self.host!r})"


class Refused(Exception):
    """The server lets us in, but not with this: nothing was sent."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(verdict.code)
        self.verdict = verdict


class Line:
    """One connection, logged in."""

    __slots__ = ("client", "kept", "mails", "used_s")

    def __init__(self, client: SMTP) -> None:
        self.client = client
        self.kept = False  # it has carried a mail before
        self.mails = 0
        self.used_s = 0.0

    def write(self, data: bytes) -> None:
        """Raises SMTPServerDisconnected."""
        assert self.client.protocol is not None
        self.client.protocol.write(data)

    @property
    def unsent_bytes(self) -> int:
        """What the kernel has not taken yet."""
        transport = self.client.transport
        return cast(asyncio.WriteTransport, transport).get_write_buffer_size() if transport is not None else 0

    def hang_up(self) -> None:
        """At once, whatever is unsaid."""
        if self.client.transport is not None:
            cast(asyncio.WriteTransport, self.client.transport).abort()
        self.client.close()

    def quit(self) -> None:
        """Says good-bye without waiting for an answer."""
        with contextlib.suppress(SMTPException, OSError):
            if self.client.is_connected:
                self.write(b"QUIT\r\n")
        self.client.close()


class Pool:
    """At most `size` connections. One that `take` gave goes back by `give`, or ends by `drop`."""

    def __init__(self, account: Account, size: int) -> None:
        self._account = account
        self._free = asyncio.Semaphore(size)
        self._idle: list[Line] = []
        self._busy: set[Line] = set()
        self._addresses = Addresses(allow_private=True)
        self._closed = False

    async def take(self, fresh: bool = False) -> Line:
        """A connection; `fresh`: a new one. Raises NotWritten, or Refused."""
        await self._free.acquire()
        try:
            line = None if fresh else self._kept()
            line = line if line is not None else await self._open()
        except BaseException:
            self._free.release()
            raise
        self._busy.add(line)
        return line

    def give(self, line: Line) -> None:
        """It may carry another mail."""
        self._free.release()
        self._busy.discard(line)
        line.mails += 1
        line.kept = True
        line.used_s = asyncio.get_running_loop().time()
        if self._closed or line.mails >= MOST_MAILS or not line.client.is_connected:
            line.quit()
        else:
            self._idle.append(line)

    def drop(self, line: Line) -> None:
        """It is in no known state."""
        self._free.release()
        self._busy.discard(line)
        line.hang_up()

    async def close(self) -> None:
        self._closed = True
        idle, self._idle = self._idle, []
        for line in idle:
            line.quit()
        for line in list(self._busy):
            line.hang_up()
        await self._addresses.close()

    def _kept(self) -> Line | None:
        """The one used last."""
        now_s = asyncio.get_running_loop().time()
        while self._idle:
            line = self._idle.pop()
            if line.client.is_connected and now_s - line.used_s <= _IDLE_S:
                return line
            line.quit()
        return None

    async def _open(self) -> Line:
        if self._closed:
            raise NotWritten("the connection was closed")
        try:
            async with asyncio.timeout(PHASES.connect_s):
                return await self._connect()
        except TimeoutError:  # aiosmtplib's own too
            raise NotWritten(f"no connection within {PHASES.connect_s:g} s") from None
        except SMTPResponseException as error:
            refused = verdict("session", error.code, error.message)
            if refused is None:
                raise NotWritten("the server sent what is no SMTP") from None
            raise Refused(refused) from None
        except SMTPException as error:
            if isinstance(error, OSError):  # the connection ended
                raise NotWritten(error.message) from None
            raise Refused(Verdict("auth", "no STARTTLS")) from None
        except (OSError, ValueError) as error:
            raise NotWritten(str(error) or type(error).__name__) from None

    async def _connect(self) -> Line:
        account = self._account
        connected = await self._addresses.connect(account.host, account.port)
        client = SMTP(
            hostname=account.host,
            sock=connected,
            local_hostname=account.ourselves,
            timeout=None,
            use_tls=account.tls is not None and not account.starttls,
            start_tls=account.starttls,
            tls_context=account.tls,
        )
        line = Line(client)
        try:
            await client.connect()
            if client.is_ehlo_or_helo_needed:
                await client.ehlo()
            if account.username is not None and account.password is not None:
                await _log_in(client, account.username, account.password)
        except BaseException:
            line.hang_up()
            connected.close()
            raise
        return line


async def _log_in(client: SMTP, username: str, password: Secret) -> None:
    """By one method only: a password that is wrong by one is wrong by all, and servers count."""
    methods = client.supported_auth_methods
    if not methods:
        raise Refused(Verdict("auth", "no AUTH"))
    ways = {"cram-md5": client.auth_crammd5, "plain": client.auth_plain, "login": client.auth_login}
    await ways[methods[0]](username, password.reveal())
