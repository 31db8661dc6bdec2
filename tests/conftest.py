from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"

# Fewer examples of each property in an ordinary run; all of them in the nightly one:
# pytest --hypothesis-profile=nightly
for name, examples in (("npusim", 30), ("nightly", 100)):
    settings.register_profile(
        name,
        max_examples=examples,
        deadline=None,
        derandomize=True,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )
settings.load_profile("npusim")


@pytest.fixture(scope="session")
def root():
    return ROOT


@pytest.fixture(scope="session")
def shared():
    if not SHARED.is_dir():
        pytest.skip("../shared is not beside the checkout")
    return SHARED


@pytest.fixture(autouse=True)
def _needs_shared(request):
    if request.node.get_closest_marker("shared") and not SHARED.is_dir():
        pytest.skip("../shared is not beside the checkout")
