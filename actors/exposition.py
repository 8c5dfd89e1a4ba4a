"""Every process's own `/metrics`: a small thread that Prometheus can ask even while the loop is busy."""

from prometheus_client import GC_COLLECTOR, PLATFORM_COLLECTOR, PROCESS_COLLECTOR, CollectorRegistry, start_http_server

from actors.tally import Tally


def registry_of(tally: Tally) -> CollectorRegistry:
    """A registry with this process's tally and Python's own figures."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(tally)
    for collector in (PROCESS_COLLECTOR, PLATFORM_COLLECTOR, GC_COLLECTOR):
        registry.register(collector)
    return registry


def expose(registry: CollectorRegistry, host: str) -> int:
    """Serve the registry on a free port of `host`; returns the port."""
    server, _ = start_http_server(0, addr=host, registry=registry)
    return int(server.server_port)
