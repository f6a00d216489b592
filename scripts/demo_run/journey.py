"""One request through the gateway's endpoint by its own client, `limner-gateway generate`."""

import json
import os
import re
import secrets
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.local_network.network import BIN, Gateway
from scripts.local_network.processes import ProgramError

LONGEST_SLUG = 60


@dataclass(frozen=True, slots=True)
class Wish:
    """What is asked for; width and height in pixels."""

    prompt: str
    width: int
    height: int
    steps: int
    seed: int

    @classmethod
    def drawing_a_seed(
        cls, prompt: str, size: tuple[int, int], steps: int, seed: int | None
    ) -> "Wish":
        drawn = secrets.randbelow(2**32) if seed is None else seed
        return cls(prompt, size[0], size[1], steps, drawn)

    def file_in(self, folder: Path) -> Path:
        slug = re.sub(r"[^a-z0-9]+", "-", self.prompt.lower()).strip("-")[:LONGEST_SLUG]
        return folder / f"{slug or 'image'}-{self.seed}.png"

    def body(self) -> dict[str, Any]:
        return {
            "model_id": "",
            "prompt": self.prompt,
            "width": self.width,
            "height": self.height,
            "num_inference_steps": self.steps,
            "seed": self.seed,
        }


def send(wish: Wish, gateway: Gateway, path: Path) -> None:
    """Have the picture made and written to `path`; progress and refusals go to the terminal."""
    path.parent.mkdir(parents=True, exist_ok=True)
    command = [str(BIN / "limner-gateway"), "generate", wish.prompt, "--output", str(path)]
    command += ["--url", gateway.url, "--seed", str(wish.seed), "--steps", str(wish.steps)]
    command += ["--width", str(wish.width), "--height", str(wish.height)]
    done = subprocess.run(command, env={**os.environ, "LIMNER_API_KEY": gateway.key}, check=False)
    if done.returncode:
        raise ProgramError(f"the request did not succeed (exit status {done.returncode})")


def curl_line(url: str, key: str, wish: Wish) -> str:
    """The same request for a shell; `url` and `key` may be names of shell variables."""
    return (
        f'curl -s "{url}/text-to-image" -H "Authorization: Bearer {key}" '
        f"-H 'Content-Type: application/json' -d {shlex.quote(json.dumps(wish.body()))}"
    )
