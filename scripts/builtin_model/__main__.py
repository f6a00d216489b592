"""The command lines: train, evaluate, sheet, loras, lora-sheet."""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

import torch

from scripts.builtin_model.adapters import STYLES, AdapterTrainer
from scripts.builtin_model.contact_sheet import draw_contact_sheet, draw_lora_sheet
from scripts.builtin_model.decoder_training import DECODER_STAGES, DecoderTrainer
from scripts.builtin_model.details import measure_details
from scripts.builtin_model.evaluation import CASES, Case, measure
from scripts.builtin_model.exporting import export, load
from scripts.builtin_model.training import STAGES, Trainer

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = ROOT / "node" / "builtin" / "shapes"
SHIPPED_LORAS = ROOT / "node" / "builtin" / "loras"


def train(words: list[str]) -> None:
    """Train what is not trained yet, then write the pipeline directory."""
    parser = argparse.ArgumentParser(
        prog="train_builtin_model",
        description="Train limner/shapes from nothing. Training resumes from the checkpoints in "
        "the work directory; when they are complete, only the pipeline is written again. The "
        "decoder and the denoiser are independent of each other, so two calls with --part can "
        "train them side by side.",
    )
    parser.add_argument("--work-dir", type=Path, default=ROOT / "out" / "train")
    parser.add_argument("--part", choices=("decoder", "denoiser", "export"))
    parser.add_argument("--stage", choices=[stage.name for stage in STAGES])
    parser.add_argument("--output", type=Path, default=SHIPPED)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args(words)
    torch.set_num_threads(arguments.threads)
    arguments.work_dir.mkdir(parents=True, exist_ok=True)
    if arguments.part in (None, "decoder"):
        decoder = DecoderTrainer(arguments.work_dir, arguments.seed)
        decoder.resume()
        decoder.run(DECODER_STAGES)
    if arguments.part in (None, "denoiser"):
        trainer = Trainer(arguments.work_dir, arguments.seed)
        trainer.resume()
        trainer.run(STAGES, arguments.stage)
    if arguments.part in (None, "export"):
        export(arguments.work_dir, arguments.output)


def evaluate(words: list[str]) -> None:
    """Generate from held-out prompts and print a table, or one JSON line."""
    parser = argparse.ArgumentParser(
        prog="evaluate_builtin_model",
        description="Measure how well limner/shapes draws prompts that training never showed.",
    )
    parser.add_argument("--model", type=Path, default=SHIPPED)
    parser.add_argument("--count", type=int, default=60, help="prompts for each row")
    parser.add_argument("--size", help="only this size, as WIDTHxHEIGHT")
    parser.add_argument("--steps", type=int, default=20, help="with --size")
    parser.add_argument("--guidance", type=float, default=7.5, help="with --size")
    parser.add_argument("--details", action="store_true", help="positions, sizes and pairs")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="print one JSON line")
    arguments = parser.parse_args(words)
    torch.set_num_threads(arguments.threads)
    cases: tuple[Case, ...] = CASES
    if arguments.size:
        width, height = (int(side) for side in arguments.size.split("x"))
        cases = (Case(width, height, arguments.steps, arguments.guidance),)
    pipeline = load(arguments.model)
    results = []
    if not arguments.json:
        print("size       steps  guidance    n  background  colour  both   shape   s/picture")
    for case in cases:
        score = measure(pipeline, case, arguments.count)
        results.append({**asdict(case), **asdict(score)})
        if not arguments.json:
            size = f"{case.width}x{case.height}"
            print(
                f"{size:<10} {case.steps:>5}  {case.guidance:>8}  {score.count:>3}  "
                f"{score.background:>10.3f}  {score.colour:>6.3f}  {score.both:>.3f}  "
                f"{score.shape:>.3f}  {score.seconds:>8.2f}",
                flush=True,
            )
    report: dict[str, object] = {"model": "limner/shapes", "results": results}
    if arguments.details:
        report["details"] = asdict(measure_details(pipeline, arguments.count))
        if not arguments.json:
            print(report["details"])
    if arguments.json:
        print(json.dumps(report))


def draw_sheet(words: list[str]) -> None:
    """Draw the contact sheet."""
    parser = argparse.ArgumentParser(
        prog="draw_builtin_model_sheet", description="Draw example pictures of limner/shapes."
    )
    parser.add_argument("--model", type=Path, default=SHIPPED)
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "shapes.png")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args(words)
    torch.set_num_threads(arguments.threads)
    draw_contact_sheet(load(arguments.model), arguments.output)


def train_loras(words: list[str]) -> None:
    """Train the LoRAs and write them."""
    names = [style.name for style in STYLES]
    parser = argparse.ArgumentParser(
        prog="train_builtin_loras",
        description="Train the LoRAs of limner/shapes, a few minutes on one core. The same machine "
        "and seed give the same files.",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(names)}; or all")
    parser.add_argument("--model", type=Path, default=SHIPPED)
    parser.add_argument("--output", type=Path, default=SHIPPED_LORAS)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args(words)
    unknown = sorted(set(arguments.names) - set(names))
    if unknown:
        parser.error(f"there is no LoRA called {', '.join(unknown)}")
    torch.set_num_threads(arguments.threads)
    for style in STYLES:
        if style.name in (arguments.names or names):
            trainer = AdapterTrainer(arguments.model, style, arguments.seed)
            trainer.run()
            print(trainer.save(arguments.output))


def sheet_of_loras(words: list[str]) -> None:
    """Draw the same prompts with and without the LoRAs."""
    parser = argparse.ArgumentParser(
        prog="draw_builtin_lora_sheet", description="Draw what the LoRAs of limner/shapes do."
    )
    parser.add_argument("--model", type=Path, default=SHIPPED)
    parser.add_argument("--loras", type=Path, default=SHIPPED_LORAS)
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "loras.png")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args(words)
    torch.set_num_threads(arguments.threads)
    draw_lora_sheet(load(arguments.model), arguments.loras, arguments.output)


COMMANDS = {
    "train": train,
    "evaluate": evaluate,
    "sheet": draw_sheet,
    "loras": train_loras,
    "lora-sheet": sheet_of_loras,
}

if __name__ == "__main__":
    COMMANDS[sys.argv[1]](sys.argv[2:])
