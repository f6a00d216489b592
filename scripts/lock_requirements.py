"""Resolve all of pyproject.toml by pip, without installing anything, and write requirements.lock."""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements.lock"
PYPROJECT = ROOT / "pyproject.toml"
#: What pip needs besides: itself, and what builds the editable installation.
INSTALLERS = ("pip>=26.3", "hatchling>=1.27", "editables")
#: Which of these exist depends on the platform's torch wheel, and that wheel names them with ==.
PINNED_BY_TORCH = re.compile(r"nvidia-(?!ml-py)|cuda-|triton")
HEADER = """\
# Exact versions of everything that scripts/setup installs: `pip install -c requirements.lock ...`.
# Made by scripts/lock from pyproject.toml (every extra, every group, the build tools, pip itself).
# The CUDA libraries of torch are left out: they differ by platform, and torch itself pins them with ==.
"""


def main() -> int:
    upgrade = "--upgrade" in sys.argv[1:]
    versions = _resolved(keep=LOCK.exists() and not upgrade)
    lines = [f"{name}=={version}" for name, version in sorted(versions.items())]
    LOCK.write_text(HEADER + "\n".join(lines) + "\n")
    print(f"{LOCK.name}: {len(lines)} packages")
    return 0


def _resolved(*, keep: bool) -> dict[str, str]:
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed"]
        command += ["--quiet", "--report", str(report), "-e", f"{ROOT}[node,gateway,s3,devnet]"]
        command += ["--group", f"{PYPROJECT}:dev", *INSTALLERS]
        if keep:
            command += ["-c", str(LOCK)]
        subprocess.run(command, check=True)
        found = json.loads(report.read_text())["install"]
    versions = {}
    for entry in found:
        name = re.sub(r"[-_.]+", "-", entry["metadata"]["name"]).lower()
        if name != "limner" and not PINNED_BY_TORCH.match(name):
            # The public version: a local part such as +cpu names one index's build.
            versions[name] = entry["metadata"]["version"].partition("+")[0]
    return versions


if __name__ == "__main__":
    sys.exit(main())
