"""Answers as every route gives them."""

from typing import Any, Final

import orjson
from aiohttp import web
from multidict import CIMultiDict

from network.errors import Problem

#: Instead of aiohttp's default, which tells versions to whoever asks.
SERVER: Final = "limner-gateway"
_JSON: Final = "application/json"


def json_bytes(body: bytes, status: int = 200) -> web.Response:
    """An answer of ready-made JSON; never cached, for most answers belong to one client."""
    headers = CIMultiDict({"Content-Type": _JSON, "Cache-Control": "no-store", "Server": SERVER})
    return web.Response(body=body, status=status, headers=headers)


def json_answer(value: Any, status: int = 200) -> web.Response:
    return json_bytes(orjson.dumps(value), status)


def problem_answer(problem: Problem) -> web.Response:
    """The error envelope with the headers its status demands."""
    response = json_bytes(problem.body(), problem.status)
    response.headers.update(problem.headers)
    return response


def no_content(allow: str) -> web.Response:
    """The answer to OPTIONS."""
    return web.Response(status=204, headers={"Allow": allow, "Server": SERVER})
