"""What speaks to a real store here does so with servers of both kinds."""

from tests.servers import server, shared_server

__all__ = ["server", "shared_server"]
