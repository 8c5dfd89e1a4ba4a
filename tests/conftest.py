"""What every test has: hypothesis profiles, one seed for the session, and the project's root on the path."""

import os
import random
from typing import Final

import pytest
from hypothesis import HealthCheck, Phase, settings

#: Runners of a shared machine stall for seconds, which is no fault of an example.
_SLOW: Final = (HealthCheck.too_slow, HealthCheck.data_too_large)
settings.register_profile("dev", max_examples=100, deadline=None, suppress_health_check=_SLOW)
settings.register_profile("ci", settings.get_profile("dev"), print_blob=True)
settings.register_profile(
    "fuzz", settings.get_profile("ci"), max_examples=10_000, phases=(Phase.explicit, Phase.generate, Phase.shrink)
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "dev"))

_SEED: Final = pytest.StashKey[int]()


def pytest_configure(config: pytest.Config) -> None:
    """One seed drives hypothesis and every test that asks for chance; DISPATCHER_TEST_SEED repeats a session."""
    seed = int(os.environ.get("DISPATCHER_TEST_SEED") or random.SystemRandom().getrandbits(32))
    config.stash[_SEED] = seed
    if config.getoption("hypothesis_seed", default=None) is None:
        config.option.hypothesis_seed = str(seed)


def pytest_report_header(config: pytest.Config) -> str:
    return f"seed: {config.stash[_SEED]} (repeat with DISPATCHER_TEST_SEED={config.stash[_SEED]})"


@pytest.fixture(scope="session")
def seed(pytestconfig: pytest.Config) -> int:
    """The session's seed."""
    return pytestconfig.stash[_SEED]


@pytest.fixture
def rng(seed: int, request: pytest.FixtureRequest) -> random.Random:
    """Chance that a test can repeat: the session's seed and the test's name."""
    return random.Random(f"{seed}:{request.node.nodeid}")
