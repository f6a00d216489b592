"""A process that appends rows for ever and prints each one only when it is durable.

python append_until_killed.py URL
"""

import asyncio
import itertools
import sys

from network.runtime.database import Database, open_database
from tests.network.runtime.tables import events, jobs

MIGRATIONS = "tests.network.runtime.migrations"
WRITERS = 8


async def write(database: Database, writer: int) -> None:
    for number in itertools.count():
        job = f"{writer}-{number}"
        rows = [(jobs, {"job_id": job}), (events, {"job_id": job, "what": "made"})]
        await database.append(rows)
        sys.stdout.write(f"{job}\n")
        sys.stdout.flush()


async def main(url: str) -> None:
    async with open_database(url, MIGRATIONS) as database, asyncio.TaskGroup() as group:
        for writer in range(WRITERS):
            group.create_task(write(database, writer))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
