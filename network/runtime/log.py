"""Structured logs: few lines, to standard error, never with a secret in them."""

import logging
import sys
from collections.abc import Mapping, MutableMapping
from functools import lru_cache
from typing import Any, Final, Literal, TextIO

import orjson
import structlog

Format = Literal["auto", "console", "json"]

REDACTED: Final = "[redacted]"
_LEVELS: Final = ("debug", "info", "warning", "error", "critical")
#: A field whose last word is one of these is never written. `key_id` may be, `api_key` not.
_SECRET_WORDS: Final = frozenset(
    ("authorization", "bearer", "key", "passphrase", "password", "prompt", "secret", "token")
)
_PLURALS: Final = frozenset(word + "s" for word in _SECRET_WORDS)
_DEEPEST: Final = 4
#: What holds no other fields: most of what lines say.
_PLAIN: Final = (str, int, float)


def configure(level: str = "info", fmt: Format = "auto", stream: TextIO | None = None) -> None:
    """Route structlog and the standard library's loggers to `stream`, standard error by default.

    "auto" is coloured text on a terminal and JSON lines elsewhere. Libraries are heard from
    warnings upwards. Raises ValueError for an unknown level.
    """
    if level not in _LEVELS:
        raise ValueError(f"log level {level!r} is none of {', '.join(_LEVELS)}")
    out = sys.stderr if stream is None else stream
    as_text = fmt == "console" or (fmt == "auto" and out.isatty())
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        redact,
    ]
    structlog.configure(
        processors=[*shared[:2], *shared[3:], *_renderers(as_text=as_text)],
        wrapper_class=structlog.make_filtering_bound_logger(_number(level)),
        logger_factory=structlog.WriteLoggerFactory(file=out),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *_renderers(as_text=as_text),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(_number(level), logging.WARNING))


def redact(
    _logger: Any, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """A structlog processor that blanks fields by their names, nested ones too."""
    for name, value in event.items():
        if is_secret(name) or not isinstance(value, _PLAIN):
            event[name] = _redacted(name, value, _DEEPEST)
    return event


@lru_cache(maxsize=1024)
def is_secret(name: str) -> bool:
    """Whether a field or setting called `name` holds what must never be shown."""
    last = name.lower().replace("-", "_").rsplit("_", 1)[-1]
    return last in _SECRET_WORDS or last in _PLURALS


def _redacted(name: str, value: object, depth: int) -> object:
    if is_secret(name):
        return REDACTED
    if isinstance(value, Mapping):
        if depth == 0:
            return REDACTED
        return {key: _redacted(str(key), inner, depth - 1) for key, inner in value.items()}
    return value


def _renderers(*, as_text: bool) -> list[structlog.typing.Processor]:
    if as_text:
        # Rich tracebacks would print local variables: prompts and keys.
        plain = structlog.dev.plain_traceback
        return [structlog.dev.ConsoleRenderer(exception_formatter=plain)]
    return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(_json)]


def _json(event: object, **_options: object) -> str:
    return orjson.dumps(event, default=repr, option=orjson.OPT_NON_STR_KEYS).decode()


def _number(level: str) -> int:
    return logging.getLevelNamesMapping()[level.upper()]
