"""Livepeer's Python SDK in a process of its own, a signer for it, and whoever stands between the two."""

import asyncio
import json
import os
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import aiohttp
import pybase64
import pytest
from aiohttp import web

from network.wire.codec import Payment, decode_payment, decode_segment_credentials
from network.wire.tickets import decode_ticket_params
from scripts.local_network.network import ROOT

HERE = Path(__file__).parent
PYTHON = ROOT / ".venv-interop" / "bin" / "python"
#: Seconds that one of its calls may take; the SDK's own default is 5.
PATIENCE = 60.0
#: What `scripts/interop_environment` ends with where there is no Python for the SDK.
_NO_PYTHON = 3


def sdk_python() -> Path:
    """The interpreter that has the SDK; made if need be. Skips where there is none for it."""
    made = subprocess.run(
        [ROOT / "scripts" / "interop_environment"], capture_output=True, text=True, check=False
    )
    if made.returncode == _NO_PYTHON:
        pytest.skip(made.stderr.strip())
    assert made.returncode == 0, made.stderr
    return PYTHON


class Sdk:
    """A program that uses the SDK: see `gateway_sdk.py`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def ask(self, operation: str, **options: Any) -> dict[str, Any]:
        """What the SDK returned, or the error that it raised."""
        source, sink = self._process.stdout, self._process.stdin
        assert source is not None
        assert sink is not None
        sink.write(json.dumps({"operation": operation, **options}).encode() + b"\n")
        async with asyncio.timeout(PATIENCE + 10):
            line = await source.readline()
        assert line, "the program ended; its own words are above"
        told: dict[str, Any] = json.loads(line)
        return told

    async def select(self, **options: Any) -> dict[str, Any]:
        told = await self.ask("select", **{"timeout": PATIENCE, **options})
        assert "error" not in told, told
        return told


@asynccontextmanager
async def running_sdk() -> AsyncIterator[Sdk]:
    python = await asyncio.to_thread(sdk_python)
    process = await asyncio.create_subprocess_exec(
        python,
        HERE / "gateway_sdk.py",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        limit=2**20,
        env={**os.environ, "NO_PROXY": "*"},
    )
    try:
        yield Sdk(process)
    finally:
        if process.stdin is not None:
            process.stdin.close()
        await process.wait()


@dataclass(frozen=True)
class Paid:
    """What a signer gave its client for one call."""

    payment: Payment

    @property
    def price(self) -> Fraction:
        assert self.payment.expected_price is not None
        return self.payment.expected_price

    @property
    def value(self) -> Fraction:
        """Of all its tickets, in wei."""
        assert self.payment.ticket_params is not None
        params = decode_ticket_params(self.payment.ticket_params, self.payment.expiration_params)
        return len(self.payment.tickets) * params.expected_value


@dataclass
class Witness:
    """Passes on what SDK and signer say to each other, and keeps the payments by session."""

    url: str = ""
    payments: dict[str, Paid] = field(default_factory=dict)

    def note(self, told: dict[str, Any]) -> None:
        payment = decode_payment(pybase64.b64decode(told["payment"], validate=True))
        credentials = pybase64.b64decode(told["segCreds"], validate=True)
        session = decode_segment_credentials(credentials).manifest_id.decode()
        assert session not in self.payments
        self.payments[session] = Paid(payment)


@asynccontextmanager
async def witnessed(signer_url: str) -> AsyncIterator[Witness]:
    """A place that behaves as the signer does."""
    witness = Witness()
    async with aiohttp.ClientSession() as client:

        async def pass_on(request: web.Request) -> web.Response:
            async with client.request(
                request.method,
                signer_url + request.path_qs,
                data=await request.read(),
                headers={"Content-Type": "application/json"},
            ) as answer:
                body = await answer.read()
                if request.path == "/generate-live-payment" and answer.status == 200:
                    witness.note(json.loads(body))
                return web.Response(
                    status=answer.status, body=body, content_type=answer.content_type
                )

        application = web.Application()
        application.router.add_route("*", "/{path:.*}", pass_on)
        runner = web.AppRunner(application, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        try:
            witness.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            yield witness
        finally:
            await runner.cleanup()
