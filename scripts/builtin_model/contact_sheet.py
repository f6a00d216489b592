"""Draws a sheet of example pictures, each with its prompt below it."""

from dataclasses import dataclass
from pathlib import Path

from diffusers import StableDiffusionPipeline
from PIL import Image, ImageDraw, ImageFont

from scripts.builtin_model.evaluation import Case, draw

GUIDANCE = 7.5
TILE = 256  # pixels of the longer side of a picture on the sheet
CAPTION = 44  # pixels below a picture
GAP = 14
COLUMNS = 4
INK, PAPER = (40, 42, 48), (252, 252, 250)


@dataclass(frozen=True)
class Example:
    """A prompt with the size and the seed of its picture."""

    prompt: str
    width: int = 512
    height: int = 512
    seed: int = 1


EXAMPLES = (
    Example("a small red circle on a blue background"),
    Example("yellow star, green background"),
    Example("a large pink heart on a purple background"),
    Example("a white moon on a black background"),
    Example("an orange ring on a white background"),
    Example("a cyan diamond on a purple background"),
    Example("a purple hexagon on a yellow background"),
    Example("a brown cross on a pink background"),
    Example("a green triangle on an orange background"),
    Example("a black square in the top left corner of a gray background"),
    Example("A RED HEART"),
    Example("blue background with a yellow moon"),
    Example("an orange circle on the right on a cyan background", 1024, 576),
    Example("a white star on a red background", 1024, 576),
    Example("a red circle and a blue square on a white background", 1024, 576),
    Example("a green heart at the bottom on a yellow background", 1024, 576),
)


#: The rows of the LoRAs' sheet: what each is drawn with, by the name of its file.
LORA_ROWS: tuple[dict[str, float], ...] = (
    {},
    {"night": 1.0},
    {"outlines": 1.0},
    {"outlines": 0.5},
    {"night": 1.0, "outlines": 1.0},
)
LORA_PROMPTS = (
    "a red circle on a white background",
    "a green star on a yellow background",
    "a purple square on an orange background",
    "a blue heart on a pink background",
)


def draw_lora_sheet(pipeline: StableDiffusionPipeline, loras: Path, path: Path) -> None:
    """Draw a row of prompts without LoRAs, and the same seeds with each of LORA_ROWS."""
    for file in sorted(loras.glob("*.safetensors")):
        pipeline.load_lora_weights(loras, weight_name=file.name, adapter_name=file.stem)
    height = TILE + CAPTION
    size = (COLUMNS * (TILE + GAP) + GAP, len(LORA_ROWS) * height + GAP)
    sheet = Image.new("RGB", size, PAPER)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=13)
    for row, weights in enumerate(LORA_ROWS):
        if weights:
            pipeline.enable_lora()
            pipeline.set_adapters(list(weights), list(weights.values()))
        else:
            pipeline.disable_lora()
        pictures = draw(pipeline, Case(512, 512, 20, GUIDANCE), list(LORA_PROMPTS), 1)
        top = GAP + row * height
        said = ", ".join(f"limner/{name} {weight:g}" for name, weight in weights.items())
        for column, picture in enumerate(pictures):
            left = GAP + column * (TILE + GAP)
            small = picture.resize((TILE, TILE), Image.Resampling.LANCZOS)
            sheet.paste(small, (left, top))
            text = LORA_PROMPTS[column] if row == 0 else said
            pen.text((left, top + TILE + 5), text, fill=INK, font=font)
    sheet.save(path, optimize=True)


def draw_contact_sheet(pipeline: StableDiffusionPipeline, path: Path) -> None:
    """Generate every example and write the sheet as PNG with a reduced palette."""
    rows = [EXAMPLES[begin : begin + COLUMNS] for begin in range(0, len(EXAMPLES), COLUMNS)]
    heights = [max(TILE * e.height // e.width for e in row) + CAPTION + GAP for row in rows]
    sheet = Image.new("RGB", (COLUMNS * (TILE + GAP) + GAP, sum(heights) + GAP), PAPER)
    top = GAP
    for row, height in zip(rows, heights, strict=True):
        for column, example in enumerate(row):
            left = GAP + column * (TILE + GAP)
            _paste(sheet, pipeline, example, (left, top))
        top += height
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path, optimize=True)


def _paste(
    sheet: Image.Image,
    pipeline: StableDiffusionPipeline,
    example: Example,
    corner: tuple[int, int],
) -> None:
    case = Case(example.width, example.height, 30, GUIDANCE)
    picture = draw(pipeline, case, [example.prompt], example.seed)[0]
    size = (TILE, TILE * example.height // example.width)
    sheet.paste(picture.resize(size, Image.Resampling.LANCZOS), corner)
    pen = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=13)
    for line, text in enumerate(_wrap(example.prompt, pen, font)):
        where = (corner[0], corner[1] + size[1] + 5 + 17 * line)
        pen.text(where, text, fill=INK, font=font)


def _wrap(
    text: str, pen: ImageDraw.ImageDraw, font: ImageFont.FreeTypeFont | ImageFont.ImageFont
) -> list[str]:
    """Break a prompt into lines that fit below a picture."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if pen.textlength(longer, font=font) > TILE and lines[-1]:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines
