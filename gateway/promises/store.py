"""Promises in the gateway's database; their fulfilments come by its journal."""

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Connection, RowMapping, and_, delete, insert, or_, select, update

from gateway.accounting.events import Fulfilment
from gateway.accounting.journal import Journal
from gateway.accounting.tables import fulfilments, promises, settlements
from gateway.promises.model import Kept, Promise
from network.runtime.database import Database

#: Seconds after which a promise with neither an answer nor a body is taken for abandoned.
_ABANDONED: Final = 86_400.0
_COLUMNS: Final = tuple(column.name for column in promises.columns)
_KEPT: Final = (
    select(
        promises,
        fulfilments.c.state,
        fulfilments.c.status,
        fulfilments.c.body.label("answer"),
        fulfilments.c.headers,
        fulfilments.c.finished_at,
        settlements.c.state.label("settled"),
        settlements.c.fee,
    )
    .outerjoin(fulfilments, fulfilments.c.request_id == promises.c.request_id)
    .outerjoin(settlements, settlements.c.request_id == promises.c.request_id)
)
_OWN: Final = (
    select(fulfilments.c.request_id)
    .where(fulfilments.c.request_id == promises.c.request_id)
    .correlate(promises)
)
_IS_FULFILLED: Final = _OWN.exists()


class PromiseStore:
    """Every method raises DatabaseError when what it does did not happen."""

    def __init__(self, database: Database, journal: Journal) -> None:
        self._database = database
        self._journal = journal

    async def add(self, promise: Promise, *, instead_of: str | None = None) -> None:
        """Return when the promise is on disk, and the one of the id `instead_of` is gone."""
        row = {name: getattr(promise, name) for name in _COLUMNS}
        if instead_of is None:
            await self._database.append([(promises, row)])
            return
        gone = delete(promises).where(promises.c.promise_id == instead_of)
        await self._database.execute([gone, insert(promises).values(row)])

    async def find(
        self, key_id: str, *, name: str, idempotency_key: str | None = None
    ) -> tuple[Kept, ...]:
        """Those of one key under this name or under this idempotency key: at most two."""
        column = promises.c
        same = column.name == name
        if idempotency_key is not None:
            same = or_(same, column.idempotency_key == idempotency_key)
        query = _KEPT.where(column.key_id == key_id, same)
        return await self._journal.read(lambda c: _all(c, query))

    async def one(self, promise_id: str) -> Kept | None:
        query = _KEPT.where(promises.c.promise_id == promise_id)
        return next(iter(await self._journal.read(lambda c: _all(c, query))), None)

    async def unfinished(self) -> tuple[Kept, ...]:
        """Those that are to be fulfilled though nobody waits, the oldest first."""
        query = _KEPT.where(promises.c.body.is_not(None), ~_IS_FULFILLED)
        ordered = query.order_by(promises.c.created_at)
        return await self._journal.read(lambda c: _all(c, ordered))

    async def untold(self) -> tuple[Kept, ...]:
        """Those whose webhook was not told of their end yet, the oldest first."""
        query = _KEPT.where(promises.c.webhook.is_not(None), _IS_FULFILLED)
        ordered = query.order_by(fulfilments.c.finished_at)
        return await self._journal.read(lambda c: _all(c, ordered))

    async def run_again(self, promise_id: str, request_id: str) -> None:
        """Note under which new id of the journal."""
        await self._change(promise_id, request_id=request_id)

    async def forget_body(self, promise_id: str) -> None:
        """It was fulfilled: its prompt is nobody's business any more."""
        await self._change(promise_id, body=None)

    async def release(self, promise_id: str) -> None:
        """Let another request have its idempotency key."""
        await self._change(promise_id, idempotency_key=None)

    async def forget_webhook(self, promise_id: str) -> None:
        """It was told, or is not to be told any more."""
        await self._change(promise_id, webhook=None)

    async def withdraw(self, promise_id: str) -> None:
        await self._database.execute([delete(promises).where(promises.c.promise_id == promise_id)])

    async def forget_fulfilled_bodies(self) -> None:
        """For a start: the process before may have ended between the answer and `forget_body`."""
        left = and_(promises.c.body.is_not(None), _IS_FULFILLED)
        await self._database.execute([update(promises).where(left).values(body=None)])

    async def sweep(self, before: float) -> None:
        """Forget answers given before then (unix seconds), and promises that came to nothing."""
        old = _OWN.where(fulfilments.c.finished_at < before).exists()
        abandoned = and_(
            promises.c.body.is_(None),
            promises.c.created_at < before - _ABANDONED,
            ~_IS_FULFILLED,
        )
        owed = select(promises.c.request_id).where(promises.c.webhook.is_not(None))
        await self._database.execute(
            [
                delete(promises).where(promises.c.webhook.is_(None), or_(old, abandoned)),
                delete(fulfilments).where(
                    fulfilments.c.finished_at < before,
                    fulfilments.c.request_id.not_in(owed),
                ),
            ]
        )

    async def _change(self, promise_id: str, **values: object) -> None:
        changed = update(promises).where(promises.c.promise_id == promise_id)
        await self._database.execute([changed.values(**values)])


def _all(connection: Connection, query: Any) -> tuple[Kept, ...]:
    rows: Sequence[RowMapping] = connection.execute(query).mappings().all()
    return tuple(_kept(row) for row in rows)


def _kept(row: RowMapping) -> Kept:
    promise = Promise(**{name: row[column] for name, column in promises.columns.items()})
    fulfilment = None
    if row["status"] is not None:
        fulfilment = Fulfilment(
            promise.request_id,
            row["state"],
            row["status"],
            row["answer"],
            row["headers"],
            row["finished_at"],
        )
    return Kept(promise, fulfilment, row["fee"] if row["settled"] == "settled" else None)
