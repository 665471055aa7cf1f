"""What every test may ask for."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from tests import requires
from tests.live import Live, Serve, farcored
from tests.realdumps import RealDumps, folder
from tests.samples import unpack

# Examples take what they take: the machines are small and shared, and a slow one is not a wrong one.
settings.register_profile("farcore", settings(), deadline=None)
settings.load_profile("farcore")

# The hot lane is there with uvloop alone.
collect_ignore = [] if find_spec("uvloop") else ["server/test_lane.py", "server/test_outlet.py", "properties/test_lane.py"]


def pytest_configure(config: pytest.Config) -> None:
    # A shell has what it starts in the background ignore SIGINT, and so would all that tests start and interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    config.pluginmanager.register(requires.plugin())


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The path of an unpacked real dump, by its name (tests.samples.SAMPLES); not to be written to."""
    folder = tmp_path_factory.mktemp("samples")
    return lambda name: unpack(name, folder)


@pytest.fixture(scope="session")
def real_dumps() -> RealDumps:
    """Real dumps with the programs that read them, by name (tests.realdumps.FILES); puts a test into the tier ``tools``."""
    return RealDumps(folder())


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts servers (live.farcored's arguments) that live as long as the test."""
    yield from _servers()


@pytest.fixture(scope="session")
def serve_all_along() -> Iterator[Serve]:
    """Starts servers that live as long as the run."""
    yield from _servers()


def _servers() -> Iterator[Serve]:
    with ExitStack() as running:

        def start(*arguments: str | Path, **more: Any) -> Live:
            return running.enter_context(farcored(*arguments, **more))

        yield start
