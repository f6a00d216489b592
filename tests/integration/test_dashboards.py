"""Grafana's dashboards ask for metrics that exist, by labels that these have."""

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateway.api.kept_job import KEPT_ROUTE
from network.wire.codec import Gpu
from node.api.metrics import Metrics
from node.discovery.hardware import GpuReading
from node.payments.earning import TicketReport
from node.payments.redemptions import SenderLine
from tests.gateway.api.surface import open_surface
from tests.gateway.test_app import serving, settings_for
from tests.node.fakes import MODEL, FakeEngine
from tests.node.nodes import Buyer, running_node

FOLDER = Path(__file__).parents[2] / "configs" / "grafana"
#: What Prometheus adds to every sample, and Grafana to every query.
ADDED = {"instance", "job"}
NAME = re.compile(r"\b(?:limner|process|python)_[a-z0-9_]+")
SELECTOR = re.compile(r"\b((?:limner|process|python)_[a-z0-9_]+)\{([^}]*)\}")
LABEL = re.compile(r"(\w+)\s*(?:=~|!=|=)")
BY = re.compile(r"by \(([^)]*)\)")
LEGEND = re.compile(r"\{\{(\w+)\}\}")


def labels_by_name(text: str) -> dict[str, set[str]]:
    """The samples there are, and by which labels."""
    found: dict[str, set[str]] = defaultdict(set)
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found[sample.name] |= set(sample.labels)
    return found


def targets(name: str) -> list[tuple[str, str]]:
    board: dict[str, Any] = json.loads((FOLDER / name).read_text())
    asked = [
        (str(target["expr"]), str(target["legendFormat"]))
        for panel in board["panels"]
        for target in panel["targets"]
    ]
    queries = [
        one["query"]["query"] for one in board["templating"]["list"] if one["type"] == "query"
    ]
    return asked + [(query, "") for query in queries]


def check(asked: Iterable[tuple[str, str]], known: Mapping[str, set[str]]) -> None:
    for expression, legend in asked:
        names = set(NAME.findall(expression))
        assert names, expression
        assert names <= known.keys(), f"{expression}: no such metric"
        for name, selector in SELECTOR.findall(expression):
            wanted = set(LABEL.findall(selector))
            assert wanted <= known[name] | ADDED, f"{expression}: no such label"
        grouped = {one.strip() for group in BY.findall(expression) for one in group.split(",")}
        everything = set[str]().union(*(known[name] for name in names)) | ADDED
        assert grouped | set(LEGEND.findall(legend)) <= everything, expression
        assert not grouped or set(LEGEND.findall(legend)) <= grouped, f"{legend} was summed away"


async def test_the_gateways_board_asks_for_what_there_is(tmp_path: Path) -> None:
    asked = targets("limner-gateway.json")
    async with open_surface(tmp_path / "images") as surface:
        await surface.post()
        await surface.post(b"{}")
        known = labels_by_name((await surface.metrics.render()).decode())
    async with running_node(tmp_path / "node") as node:
        settings = settings_for(
            tmp_path / "gateway",
            node.url,
            default_model=MODEL,
            repeats={"cache": True},
            routing={"hedging": {"share": 0.05}},
        )
        async with serving(settings) as stage:
            assert (await stage.post()).status == 200
            async with stage.client.get(f"{stage.gateway.admin_url}/metrics") as response:
                known |= labels_by_name(await response.text())
    assert len(asked) > 15
    check(asked, known)


async def test_the_nodes_board_asks_for_what_there_is(tmp_path: Path) -> None:
    asked = targets("limner-node.json")
    async with running_node(tmp_path) as node, Buyer(node) as buyer:
        assert (await buyer.ask()).status == 200
        assert (await buyer.ask(width=1)).status == 400
        text = (await buyer.get("/metrics", admin=True)).text
    assert "limner_node_gpu_memory_bytes" in text, "a node of ours watches its devices"
    known = labels_by_name(text) | labels_by_name(await of_devices_and_tickets())
    assert len(asked) > 15
    check(asked, known)


async def of_devices_and_tickets() -> str:
    """What a node with a device and a chain has beside the rest."""
    engine = FakeEngine()
    metrics = Metrics("0", engine, dict)
    gpu = Gpu(id="GPU-1", name="One", major=9, minor=0, memory_free=3, memory_total=10)
    metrics.watch_gpus(lambda: [GpuReading(gpu, 50, 20)])

    async def report() -> TicketReport:
        return TicketReport((), SenderLine("all"), {}, 0, "")

    metrics.watch_tickets(report)
    text = (await metrics.exposition()).decode()
    assert 'limner_node_gpu_utilization_ratio{gpu="0"} 0.5' in text
    assert 'limner_node_gpu_memory_used_bytes{gpu="0"} 7.0' in text
    return text


def test_a_query_for_nothing_would_be_seen() -> None:
    known = {"limner_x_total": {"code"}}
    check([('sum by (code) (rate(limner_x_total{instance=~"a"}[1m]))', "{{code}}")], known)
    for expression, legend in (
        ("limner_y_total", ""),
        ('limner_x_total{route="a"}', ""),
        ("sum by (route) (limner_x_total)", ""),
        ("sum by (code) (limner_x_total)", "{{instance}}"),
    ):
        with pytest.raises(AssertionError):
            check([(expression, legend)], known)


def test_refusals_of_kept_requests_are_counted_once() -> None:
    """They are told of by their own route, and by that of the job which they wait for."""
    refusals = [
        expression
        for expression, _ in targets("limner-gateway.json")
        if re.search(r"limner_gateway_requests_total\{[^}]*code(!=|=~)", expression)
    ]
    assert len(refusals) == 2
    assert all(f'route!="{KEPT_ROUTE}"' in expression for expression in refusals)
