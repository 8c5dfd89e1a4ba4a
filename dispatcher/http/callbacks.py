"""What vendors post on their own: delivery reports, and what users text back. The secret in the path is their key."""

from typing import Final, Literal

from aiohttp import web

from dispatcher.http.ports import Ports, Untrue, VendorCall
from dispatcher.http.problem import Problem, read_body
from dispatcher.http.settings import Settings

#: The largest that vendors document are batches of some hundred reports.
MAX_CALLBACK_BYTES: Final = 1024 * 1024
TEXT: Final = """The vendor's own format, answered in its own words once what it says is durable. A wrong secret, an
unknown provider and an address outside `callback_allow` are a 404, a wrong signature is a 403, and a 503 asks the
vendor to repeat itself. Repeated and out-of-order deliveries are harmless."""


def base_url(request: web.Request, settings: Settings) -> str:
    """Where vendors reach this server: as configured, else as this caller reached it."""
    return settings.public_url or f"{request.scheme}://{request.host}"


class VendorPages:
    """The callback addresses."""

    def __init__(self, ports: Ports, settings: Settings) -> None:
        self._vendors = ports.vendors
        self._settings = settings

    async def reports(self, request: web.Request) -> web.Response:
        """Delivery reports."""
        return await self._heard(request, "reports")

    async def uplinks(self, request: web.Request) -> web.Response:
        """What users text back."""
        return await self._heard(request, "uplinks")

    async def _heard(self, request: web.Request, what: Literal["reports", "uplinks"]) -> web.Response:
        match = request.match_info
        vendor = await self._vendors.find(match["provider"], match["secret"], request.remote)
        if vendor is None:
            raise Problem(404, "there is nothing at this path")
        body = await read_body(request, MAX_CALLBACK_BYTES)
        call = VendorCall(
            what, request.method, base_url(request, self._settings) + request.raw_path, dict(request.query),
            {name.lower(): value for name, value in request.headers.items()}, body,
        )  # fmt: skip
        try:
            answer = await vendor.heard(call)
        except Untrue:
            raise Problem(403, "the signature is not the vendor's") from None
        return web.Response(status=answer.status, body=answer.body, headers={"Content-Type": answer.content_type})
