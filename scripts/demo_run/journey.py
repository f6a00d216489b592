"""One request through the gateway's endpoint, its progress shown meanwhile, and its image fetched."""

import json
import re
import shlex
import time
import urllib.error
import urllib.request
import uuid
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from scripts.local_network.network import Gateway, get_json
from scripts.local_network.processes import ProgramError

POLL_SECONDS = 0.1
REQUEST_SECONDS = 600
LONGEST_SLUG = 60


@dataclass(frozen=True, slots=True)
class Wish:
    """What is asked for; width and height in pixels."""

    prompt: str
    width: int
    height: int
    steps: int
    seed: int | None

    def body(self) -> dict[str, Any]:
        fields: dict[str, Any] = {
            "model_id": "",
            "prompt": self.prompt,
            "width": self.width,
            "height": self.height,
            "num_inference_steps": self.steps,
        }
        return fields if self.seed is None else fields | {"seed": self.seed}


@dataclass(frozen=True, slots=True)
class Picture:
    """What came back and where it was written."""

    path: Path
    seed: int
    request_id: str


def send(wish: Wish, gateway: Gateway, out: Path, console: Console) -> Picture:
    """POST the wish, show how far it is, write the PNG into `out`.

    Raises ProgramError with the gateway's own words when it refuses.
    """
    request_id = uuid.uuid4().hex
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(_post, wish, gateway, request_id)
        _show_progress(answer, gateway, request_id, console)
        image = answer.result()["images"][0]
    out.mkdir(parents=True, exist_ok=True)
    slug = re.sub(r"[^a-z0-9]+", "-", wish.prompt.lower()).strip("-")[:LONGEST_SLUG]
    path = out / f"{slug or 'image'}-{image['seed']}.png"
    path.write_bytes(_fetch(image["url"]))
    return Picture(path, image["seed"], request_id)


def curl_line(gateway: Gateway | None, wish: Wish) -> str:
    """The same request for a shell."""
    url = gateway.url if gateway else "$URL"
    key = gateway.key if gateway else "$KEY"
    body = json.dumps(wish.body())
    return (
        f'curl -s "{url}/text-to-image" -H "Authorization: Bearer {key}" '
        f"-H 'Content-Type: application/json' -d {shlex.quote(body)}"
    )


def _open(request: urllib.request.Request) -> bytes:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=REQUEST_SECONDS) as answer:
            content: bytes = answer.read()
            return content
    except urllib.error.HTTPError as error:
        raise ProgramError(f"the gateway answered {error.code}: {_reason(error)}") from error


def _reason(error: urllib.error.HTTPError) -> str:
    body = error.read()
    try:
        return str(json.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return body[:200].decode(errors="replace")


def _post(wish: Wish, gateway: Gateway, request_id: str) -> dict[str, Any]:
    headers = {
        "Authorization": f"Bearer {gateway.key}",
        "Content-Type": "application/json",
        "X-Request-Id": request_id,
    }
    body = json.dumps(wish.body()).encode()
    url = f"{gateway.url}/text-to-image"
    answer: dict[str, Any] = json.loads(_open(urllib.request.Request(url, body, headers)))  # noqa: S310
    return answer


def _fetch(url: str) -> bytes:
    return _open(urllib.request.Request(url))  # noqa: S310 - the gateway on this machine made it


def _show_progress(
    answer: Future[dict[str, Any]], gateway: Gateway, request_id: str, console: Console
) -> None:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("denoising", total=None)
        while not answer.done():
            found = _job(gateway, request_id)
            if found is not None:
                done, total = found
                progress.update(task, completed=done, total=total or None)
            time.sleep(POLL_SECONDS)
        if answer.exception() is None:
            whole = progress.tasks[0].total or 1
            progress.update(task, completed=whole, total=whole)


def _job(gateway: Gateway, request_id: str) -> tuple[int, int] | None:
    """Steps done and steps in all; None while the gateway cannot tell."""
    try:
        job = get_json(f"{gateway.url}/jobs/{request_id}")
    except OSError:
        return None
    return job.get("done_steps", 0), job.get("total_steps", 0)
