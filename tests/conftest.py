"""Rules for every test, and real nodes and gateways for those that ask."""

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import structlog
from blockbuster import blockbuster_ctx
from hypothesis import HealthCheck, settings
from pytest_socket import socket_allow_hosts

from scripts.local_network.network import LocalNetwork, NetworkFactory, NodePlan, open_network
from tests.devnet import anvil_program, deployed_chain, devnet

__all__ = ["anvil_program", "deployed_chain", "devnet"]

settings.register_profile("dev", max_examples=60, deadline=None)
settings.register_profile(
    "ci",
    max_examples=200,
    deadline=None,
    derandomize=True,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if "CI" in os.environ else "dev"))


def pytest_runtest_setup() -> None:
    """No test reaches beyond this machine, or runs with limits that programs do not have."""
    socket_allow_hosts(["127.0.0.1", "::1", "localhost"], allow_unix_socket=True)
    # py_ecc, which comes with web3, raises it so far that deep nesting overflows the C stack.
    sys.setrecursionlimit(1000)


@pytest.fixture(autouse=True)
def _logs_are_as_they_were() -> Iterator[None]:
    """A command that a test runs in this process sets up logging for the whole of it."""
    before = structlog.get_config()
    yield
    structlog.configure(**before)


@pytest.fixture(scope="session", autouse=True)
def _nothing_blocks_the_event_loop() -> Iterator[None]:
    """Blocking calls on a running loop raise, when one of the three packages is in the stack.

    The tests' own code may block: it reads small files of tmp_path between awaits. uvloop's and
    OpenSSL's own input and output are C and are not seen.
    """
    with blockbuster_ctx(["network", "node", "gateway"]) as guard:
        for lock in ("threading.Lock.acquire", "threading.Lock.acquire_lock"):
            # Locks held for microseconds (logging, queues, SQLAlchemy's pool) are no blocking.
            guard.functions[lock].deactivate()
        yield


@pytest.fixture(scope="session", autouse=True)
def _keys_are_locked_in_a_place_of_its_own(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[None]:
    """Many tests share an account; those of another run on this machine must not hold its lock."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(scope="session")
def network_of(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NetworkFactory]:
    """Start real `limner-node` and `limner-gateway` processes; all end with the session.

    A test that is done with its network calls `stop()` on it.
    """
    with ExitStack() as running:

        def start(*nodes: NodePlan, **settings: str | float | bool) -> LocalNetwork:
            folder: Path = tmp_path_factory.mktemp("network")
            network = open_network(folder, nodes, settings)
            running.callback(network.stop)
            return network

        yield start


@pytest.fixture(scope="session")
def one_node(network_of: NetworkFactory) -> LocalNetwork:
    """A node and a gateway that tests share as long as they leave both as they were."""
    return network_of(NodePlan())
