"""`limner-gateway generate`: a client of any gateway, ours or another's."""

import asyncio
import secrets
from functools import partial
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from gateway.cli.client import GatewayClient, RefusedError, UnreachableError
from gateway.cli.options import fail, in_loop
from network.errors import LimnerError
from network.runtime.supervisor import supervise
from network.wire.safety import Safety

_POLL_SECONDS = 0.2
#: Exit statuses by what the caller should do.
_NO_KEY, _REFUSED, _TRY_AGAIN = 3, 4, 5
#: What suffixes of files say that are none of a PNG's.
_FORMATS = {".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp"}
_SAFETY = {
    Safety.PASSED: "",
    Safety.FLAGGED: ", flagged by the safety check",
    Safety.BLURRED: ", blurred by the safety check",
    Safety.UNCHECKED: ", not checked for safety",
    Safety.UNKNOWN: "",
}


@click.command()
@click.argument("prompt")
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    help="Where to write the image: a PNG, or what .jpg or .webp says; more than one become FILE-1.png, FILE-2.png, ...",
)
@click.option(
    "--url",
    envvar="LIMNER_GATEWAY_URL",
    default="http://127.0.0.1:8937",
    show_default=True,
    help="The gateway.",
)
@click.option("--key", envvar="LIMNER_API_KEY", help="The bearer key; better in LIMNER_API_KEY.")
@click.option("--model", default="", help="The model; empty takes the gateway's default.")
@click.option("--width", type=int, default=1024, show_default=True)
@click.option("--height", type=int, default=576, show_default=True)
@click.option("--steps", type=int, default=50, show_default=True)
@click.option("--guidance", type=float, default=7.5, show_default=True)
@click.option("--negative", default="", help="What to keep out of the image.")
@click.option("--seed", type=int, help="Drawn by the gateway if absent.")
@click.option("--n", "images", type=int, default=1, show_default=True, help="Images.")
@click.option("--loras", default="", help='JSON: {"adapter": weight}.')
@click.option("--safety-check/--no-safety-check", default=True, show_default=True)
def command(
    *,
    prompt: str,
    output: Path,
    url: str,
    key: str | None,
    model: str,
    width: int,
    height: int,
    steps: int,
    guidance: float,
    negative: str,
    seed: int | None,
    images: int,
    loras: str,
    safety_check: bool,
) -> None:
    """Make an image of PROMPT and write it to a file.

    \b
    Exit status: 0 done, 3 the key is refused, 4 the request is refused,
    5 nobody can make it now (try again), 1 anything else.
    """  # noqa: D301 - click reads \b as a paragraph it must not wrap
    if not key:
        raise fail(
            "no key: set LIMNER_API_KEY or give --key (limner-gateway keys create); "
            '"--key anonymous" is for gateways that serve those without one',
            _NO_KEY,
        )
    body: dict[str, object] = {
        "prompt": prompt,
        "model_id": model,
        "loras": loras,
        "width": width,
        "height": height,
        "guidance_scale": guidance,
        "negative_prompt": negative,
        "safety_check": safety_check,
        "num_inference_steps": steps,
        "num_images_per_prompt": images,
    }
    if seed is not None:
        body["seed"] = seed
    if output.suffix.lower() in _FORMATS:
        body["output_format"] = _FORMATS[output.suffix.lower()]
    in_loop(_generate(url.rstrip("/"), key, body, output), _status_for)


async def _generate(url: str, key: str, body: dict[str, object], output: Path) -> None:
    console = Console(stderr=True)
    async with GatewayClient(url, key) as client:
        await _fetch_images(client, body, output, console)


async def _fetch_images(
    client: GatewayClient, body: dict[str, object], output: Path, console: Console
) -> None:
    request_id = secrets.token_hex(16)
    async with supervise() as beside:
        beside.start("progress", partial(_show_progress, client, request_id, console))
        answer = await client.text_to_image(body, request_id)
    for number, image in enumerate(answer.images, 1):
        file = output if len(answer.images) == 1 else _numbered(output, number)
        png = await client.fetch(image.url)
        await asyncio.to_thread(file.write_bytes, png)
        console.print(f"{file}  seed {image.seed}{_SAFETY[image.safety]}", highlight=False)
    if answer.warnings:
        console.print(f"note: {answer.warnings}", highlight=False, markup=False)
    if answer.fee:
        console.print(f"paid {answer.fee} wei to {answer.orchestrator or 'an orchestrator'}")


async def _show_progress(client: GatewayClient, request_id: str, console: Console) -> None:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    hidden = not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=hidden) as progress:
        task = progress.add_task("sending", total=None)
        while True:
            await asyncio.sleep(_POLL_SECONDS)
            job = await client.progress(request_id)
            if job is None:
                continue
            waiting = f"waiting, place {job.position}" if job.position else job.state
            progress.update(
                task, description=waiting, completed=job.done_steps, total=job.total_steps or None
            )


def _numbered(output: Path, number: int) -> Path:
    return output.with_name(f"{output.stem}-{number}{output.suffix}")


def _status_for(error: LimnerError) -> int:
    match error:
        case UnreachableError():
            return _TRY_AGAIN
        case RefusedError(status=401 | 403):
            return _NO_KEY
        case RefusedError(status=408 | 429 | 500 | 502 | 503 | 504):
            return _TRY_AGAIN
        case RefusedError():
            return _REFUSED
        case _:
            return 1
