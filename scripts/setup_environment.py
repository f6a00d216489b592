"""Make or refresh .venv from pyproject.toml and requirements.lock; standard library only.

A stamp inside .venv names what was installed. It is removed before work starts and written last, so an interrupted
run is simply done again, and a run with nothing to do ends at once.
"""

import argparse
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / ".limner-setup"
LOCK = ROOT / "requirements.lock"
LOG = ROOT / "out" / "setup.log"
LOG_TAIL_LINES = 25


def main() -> int:
    arguments = _arguments()
    VENV.mkdir(exist_ok=True)
    with _only_one_at_a_time():
        wanted = _fingerprint(gateway_only=arguments.gateway_only)
        if not arguments.force and _is_current(wanted, gateway_only=arguments.gateway_only):
            if not arguments.quiet:
                print(f"{VENV.name} is up to date")
            return 0
        started = time.monotonic()
        try:
            _install(wanted, gateway_only=arguments.gateway_only)
        except _SetupError as error:
            print(f"\nscripts/setup: {error}", file=sys.stderr)
            return 1
        print(f"{VENV.name} is ready ({time.monotonic() - started:.0f} s)", flush=True)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/setup", description=__doc__)
    parser.add_argument(
        "--gateway-only",
        action="store_true",
        help="install the gateway alone: no torch, no diffusers, no development tools",
    )
    parser.add_argument(
        "--force", action="store_true", help="install again even if nothing changed"
    )
    parser.add_argument(
        "--quiet", action="store_true", help="print nothing if nothing is to be done"
    )
    return parser.parse_args()


class _SetupError(Exception):
    """What failed and what to do about it, for the person at the terminal."""


@contextmanager
def _only_one_at_a_time() -> Iterator[None]:
    with (VENV / ".setup-lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("waiting for another scripts/setup to finish ...", flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _fingerprint(*, gateway_only: bool) -> str:
    """Everything that decides what is installed, the place included: a moved .venv has wrong paths inside."""
    digest = hashlib.sha256()
    for path in (LOCK, ROOT / "pyproject.toml"):
        digest.update(path.read_bytes())
    version = ".".join(map(str, sys.version_info[:2]))
    scope = "gateway" if gateway_only else "all"
    return f"{scope} {digest.hexdigest()} python{version} {VENV}"


def _is_current(wanted: str, *, gateway_only: bool) -> bool:
    try:
        found = STAMP.read_text()
    except OSError:
        return False
    # An environment with everything also serves whoever asks for the gateway alone.
    return found == wanted or (gateway_only and found == "all" + wanted.removeprefix("gateway"))


def _install(wanted: str, *, gateway_only: bool) -> None:
    LOG.parent.mkdir(exist_ok=True)
    LOG.write_text("")
    _make_venv(wanted)
    STAMP.unlink(missing_ok=True)
    pins = _pins()
    _pip("pip, the installer itself", f"pip=={pins['pip']}")
    target = ".[gateway]" if gateway_only else ".[node,gateway,s3,devnet]"
    groups = [] if gateway_only else ["--group", "dev"]
    locked = ["-c", str(LOCK), "--build-constraint", str(LOCK)]
    if gateway_only:
        what = "the gateway and its dependencies"
    else:
        what = f"the packages of {LOCK.name} ({len(pins)} at most, torch among them)"
    _pip(what, *locked, "-e", target, *groups)
    STAMP.write_text(wanted)


def _make_venv(wanted: str) -> None:
    """Create .venv, or keep it if it works and was made by this Python in this place."""
    if _works(PYTHON) and _made_here(wanted):
        return
    print(f"1/3 making {VENV.name} with Python {sys.version.split()[0]}", flush=True)
    try:
        import ensurepip  # noqa: F401, PLC0415 - Debian ships it in a package of its own
        import venv  # noqa: PLC0415
    except ImportError as error:
        version = ".".join(map(str, sys.version_info[:2]))
        message = (
            f"this Python has no '{error.name}' module, so no virtual environment can be made.\n"
            f"  Debian, Ubuntu:  sudo apt install python{version}-venv"
        )
        raise _SetupError(message) from error
    for child in ("bin", "lib", "lib64", "include", "pyvenv.cfg"):
        _remove(VENV / child)
    try:
        venv.EnvBuilder(with_pip=True, symlinks=True).create(VENV)
    except (OSError, subprocess.CalledProcessError) as error:
        message = f"could not make {VENV}: {error}"
        raise _SetupError(message) from error


def _made_here(wanted: str) -> bool:
    try:
        found = STAMP.read_text()
    except OSError:
        # Interrupted: usable when its scripts point here and it runs this version of Python.
        configuration = (VENV / "pyvenv.cfg").read_text(errors="replace")
        version = ".".join(map(str, sys.version_info[:2]))
        same_version = re.search(
            rf"^version = {re.escape(version)}\.", configuration, re.MULTILINE
        )
        return bool(same_version) and str(VENV) in _first_line(VENV / "bin" / "pip")
    return found.split(" ", 2)[2] == wanted.split(" ", 2)[2]


def _first_line(path: Path) -> str:
    try:
        return path.read_text(errors="replace").partition("\n")[0]
    except OSError:
        return ""


def _works(python: Path) -> bool:
    try:
        probe = [str(python), "-c", "import pip"]
        return subprocess.run(probe, check=False, capture_output=True, timeout=60).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _pins() -> dict[str, str]:
    lines = LOCK.read_text().splitlines()
    return dict(line.split("==", 1) for line in lines if "==" in line and not line.startswith("#"))


def _pip(what: str, *arguments: str) -> None:
    """Run `pip install`, showing what it is at; all it says goes to the log."""
    step = "2/3" if arguments[0].startswith("pip==") else "3/3"
    print(f"{step} installing {what}", flush=True)
    command = [str(PYTHON), "-m", "pip", "install", "--disable-pip-version-check"]
    # Python compiles what is really imported at its first use; compiling all of torch now takes longer.
    command += ["--no-input", "--no-compile", "--progress-bar", "off", *arguments]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "PIP_ROOT_USER_ACTION": "ignore"}
    with (
        LOG.open("a") as log,
        subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        ) as process,
    ):
        assert process.stdout is not None  # noqa: S101 - asked for above
        display = _Display()
        for line in process.stdout:
            log.write(line)
            display.show(line)
        display.close()
    if process.returncode:
        tail = "\n".join(LOG.read_text().splitlines()[-LOG_TAIL_LINES:])
        message = f"pip failed. The end of {LOG.relative_to(ROOT)}:\n{tail}"
        raise _SetupError(message)


class _Display:
    """One line that changes on a terminal; a line now and then elsewhere."""

    def __init__(self) -> None:
        self._terminal = sys.stdout.isatty()
        self._collected = 0
        self._printed_at = time.monotonic()
        self._started = time.monotonic()

    def show(self, line: str) -> None:
        text = self._summary(line.strip())
        if text is None:
            return
        seconds = time.monotonic() - self._started
        if self._terminal:
            width = shutil.get_terminal_size().columns - 1
            print(f"\r\033[K    {seconds:4.0f} s  {text}"[: width + 4], end="", flush=True)
        elif text.startswith("installing") or time.monotonic() - self._printed_at > 10:  # noqa: PLR2004
            self._printed_at = time.monotonic()
            print(f"    {seconds:4.0f} s  {text}", flush=True)

    def _summary(self, line: str) -> str | None:
        if line.startswith("Collecting "):
            self._collected += 1
            return f"{self._collected} packages found, now {line.split()[1]}"
        if line.startswith("Downloading "):
            return (
                f"{self._collected} packages found, downloading {line.rsplit('/', maxsplit=1)[-1]}"
            )
        if line.startswith("Installing collected packages: "):
            return f"installing {line.count(',') + 1} package(s) (a minute or two)"
        return None

    def close(self) -> None:
        if self._terminal:
            print("\r\033[K", end="", flush=True)


if __name__ == "__main__":
    sys.exit(main())
