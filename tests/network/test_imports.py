"""Importing what a gateway needs stays light: its process lives within 150 MB."""

import subprocess
import sys
from pathlib import Path

import network

FORBIDDEN = ("torch", "diffusers", "web3", "eth_account", "alembic", "eth_utils", "numpy", "PIL")
#: Programs of their own, and what Alembic runs when it brings a database up to date.
APART = {"devnet", "migrations"}
MODULES = sorted(
    ".".join(path.relative_to(Path(network.__path__[0]).parent).with_suffix("").parts)
    for path in Path(network.__path__[0]).rglob("*.py")
    if path.name != "__init__.py" and not APART & set(path.parts)
)


def test_the_network_package_imports_nothing_heavy() -> None:
    code = f"import sys, {', '.join(MODULES)}; print(*sorted(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(network.__path__[0]).parent,
    )
    loaded = set(done.stdout.split())
    assert "network.wire.codec" in loaded
    assert not loaded & set(FORBIDDEN)
