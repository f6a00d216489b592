"""The generated code is what the definitions give."""

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def generate(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(root / "scripts" / "generate_protobuf"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_the_generated_code_is_what_the_definitions_give() -> None:
    done = generate(ROOT, "--check")
    assert done.returncode == 0, done.stderr


def test_a_changed_definition_is_noticed_and_generated(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "network" / "wire", tmp_path / "network" / "wire")
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "generate_protobuf", tmp_path / "scripts")
    definition = tmp_path / "network" / "wire" / "proto" / "lp_rpc.proto"
    definition.write_text(definition.read_text().replace("bytes value = 1", "bytes value = 2"))

    stale = generate(tmp_path, "--check")
    assert stale.returncode == 1
    assert "lp_rpc_pb2.py differs" in stale.stderr

    assert generate(tmp_path).returncode == 0
    assert generate(tmp_path, "--check").returncode == 0
