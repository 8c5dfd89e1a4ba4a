"""Every store test runs against real servers of both kinds."""

from tests.servers import server, shared_server

__all__ = ["server", "shared_server"]
