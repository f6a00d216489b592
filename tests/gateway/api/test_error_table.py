"""The HTTP API's page names every error that clients may meet."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[3]
#: Where the code stands among the arguments of what makes problems.
PLACES = {"Problem": 3, "bad_request": 1, "conflict": 1, "_unavailable": 1}
SOURCES = (
    *sorted((ROOT / "gateway" / "api").glob("*.py")),
    *sorted((ROOT / "gateway" / "dispatch").glob("*.py")),
    *sorted((ROOT / "gateway" / "orchestrators").glob("*.py")),
    ROOT / "gateway" / "promises" / "model.py",
    ROOT / "network" / "wire" / "problems.py",
)


def codes_in(source: Path) -> Iterator[str]:
    tree = ast.parse(source.read_text())
    named = {
        target.id: node.value.value
        for node in ast.walk(tree)
        if isinstance(node, ast.AnnAssign) and isinstance(node.value, ast.Constant)
        for target in [node.target]
        if isinstance(target, ast.Name)
    }
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else ""
        name = node.func.id if isinstance(node.func, ast.Name) else name
        place = PLACES.get(name)
        if place is None or len(node.args) <= place:
            continue
        code = node.args[place]
        if isinstance(code, ast.Constant):
            yield str(code.value)
        elif isinstance(code, ast.Name) and code.id in named:
            yield str(named[code.id])


def test_every_code_is_in_the_table_and_every_one_there_exists() -> None:
    page = (ROOT / "docs" / "http-api.md").read_text()
    table = page.partition("## Errors")[2].partition("\n## ")[0]
    told = {
        code
        for line in table.splitlines()
        if re.match(r"\| [0-9]{3} \|", line)
        for code in re.findall(r"`([a-z_]+)`", line.split("|")[2])
    }
    # `bad_request` without a code, and one that comes by name from another module.
    made = {"invalid_request", "answer_lost"}.union(*map(codes_in, SOURCES))
    assert made - {"code"} == told
