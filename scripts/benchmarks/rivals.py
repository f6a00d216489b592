"""What the gateway is measured beside: LiteLLM's proxy, which does the like, and nginx, which does the least."""

import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from scripts.local_network.network import free_port

ROOT = Path(__file__).resolve().parents[2]
LITELLM = "litellm[proxy]==1.106.2"
#: Made once, beside our own environment; LiteLLM's packages are not ours to live with.
LITELLM_ENVIRONMENT = ROOT / ".venv-litellm-proxy"
_INSTALL_SECONDS = 480
_START_SECONDS = 180


class NotHereError(Exception):
    """A rival cannot be run on this machine; says why."""


@dataclass(frozen=True, slots=True)
class Rival:
    """A running proxy before the stub. `key` is what it wants of its clients, "" for nothing."""

    url: str
    pid: int
    key: str = ""


@contextmanager
def litellm(folder: Path, upstream: str, model: str) -> Iterator[Rival]:
    """LiteLLM's proxy with one worker, selling `model` of the OpenAI server at `upstream`.

    Raises NotHereError where it cannot be installed.
    """
    python = _litellm_python()
    folder.mkdir(parents=True)
    config = folder / "config.yaml"
    # It hands on `response_format` for models only of which it knows that they take it.
    config.write_text(
        f"""model_list:
  - model_name: {model}
    litellm_params: {{model: openai/dall-e-2, api_base: "{upstream}/v1", api_key: unused}}
litellm_settings: {{telemetry: false, num_retries: 0}}
"""
    )
    key = f"sk-{secrets.token_hex(24)}"
    port = free_port()
    command = [str(python.with_name("litellm")), "--config", str(config), "--num_workers", "1"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--telemetry", "False"]
    settings = {"LITELLM_MASTER_KEY": key, "LITELLM_LOG": "ERROR", "LITELLM_MODE": "PRODUCTION"}
    with _running(command, port, folder / "log", settings) as pid:
        yield Rival(f"http://127.0.0.1:{port}", pid, key)


@contextmanager
def nginx(folder: Path, upstream: str) -> Iterator[Rival]:
    """nginx with one worker that hands everything on to `upstream`. Raises NotHereError without it."""
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if program is None:
        raise NotHereError("nginx is not installed (Debian: apt install nginx-light)")
    folder.mkdir(parents=True)
    port = free_port()
    config = folder / "nginx.conf"
    config.write_text(_nginx_config(folder, port, upstream.removeprefix("http://")))
    command = [program, "-p", str(folder), "-c", str(config), "-e", str(folder / "error.log")]
    with _running(command, port, folder / "log", {}) as pid:
        yield Rival(f"http://127.0.0.1:{port}", pid)


def _nginx_config(folder: Path, port: int, upstream: str) -> str:
    # As root its worker would become another user, who cannot see the folder.
    user = "user root;" if os.geteuid() == 0 else ""
    paths = "".join(
        f"{name}_temp_path {folder}/{name};\n"
        for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    return f"""daemon off; worker_processes 1; {user} pid {folder}/pid;
events {{ worker_connections 1024; }}
http {{
access_log off; keepalive_requests 1000000000;
{paths}
upstream stub {{ server {upstream}; keepalive 64; keepalive_requests 1000000000; }}
server {{
listen 127.0.0.1:{port};
location / {{
proxy_pass http://stub; proxy_http_version 1.1; proxy_set_header Connection "";
proxy_buffers 64 256k; proxy_buffer_size 256k; proxy_busy_buffers_size 512k;
proxy_max_temp_file_size 0;
}} }} }}
"""


def _litellm_python() -> Path:
    """The Python of LiteLLM's own environment, which is made when it is missing."""
    python = LITELLM_ENVIRONMENT / "bin" / "python"
    mark = LITELLM_ENVIRONMENT / "installed"
    if mark.exists() and mark.read_text() == LITELLM:
        return python
    print(f"installing {LITELLM} into {LITELLM_ENVIRONMENT} (some minutes)", file=sys.stderr)
    try:
        shutil.rmtree(LITELLM_ENVIRONMENT, ignore_errors=True)
        _do(sys.executable, "-m", "venv", str(LITELLM_ENVIRONMENT))
        _do(str(python), "-m", "pip", "install", "--quiet", LITELLM)
    except (OSError, subprocess.SubprocessError) as error:
        raise NotHereError(f"{LITELLM} cannot be installed: {error}") from error
    mark.write_text(LITELLM)
    return python


def _do(*command: str) -> None:
    subprocess.run(command, check=True, timeout=_INSTALL_SECONDS, stdout=sys.stderr)


@contextmanager
def _running(
    command: Sequence[str], port: int, log: Path, settings: Mapping[str, str]
) -> Iterator[int]:
    """Run `command` until it takes connections at `port`; yield its id, and end it at exit."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **settings},
        )
    try:
        deadline = time.monotonic() + _START_SECONDS
        while not _takes_connections(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise NotHereError(f"{command[0]} does not serve: {log.read_text()[-800:]}")
            time.sleep(0.1)
        yield process.pid
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _takes_connections(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
