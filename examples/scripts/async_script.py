"""The same services in an event loop, which starting and stopping them never holds up.

`python async_script.py`
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import asyncpg
import redis.asyncio

from cleanroom import CleanroomEnvironment, ServiceHandle


@asynccontextmanager
async def services() -> AsyncIterator[Mapping[str, ServiceHandle]]:
    """Run the declared services: they start and stop in a thread, and the loop goes on."""
    env = CleanroomEnvironment.from_config()
    starting = asyncio.create_task(asyncio.to_thread(env.start_all))
    try:
        yield await asyncio.shield(starting)
    finally:
        # A thread cannot be cancelled: what is still starting is waited for, and then stopped.
        await asyncio.wait([starting])
        await asyncio.to_thread(env.stop_all)


async def count_rounds(rounds: list[float]) -> None:
    """Note the time again and again, as long as the loop is free to do so."""
    while True:
        rounds.append(asyncio.get_running_loop().time())
        await asyncio.sleep(0.005)


async def main() -> None:
    rounds: list[float] = []
    counting = asyncio.create_task(count_rounds(rounds))
    async with services() as handles:
        print("while the services started, the loop went round", len(rounds), "times")
        connection = await asyncpg.connect(handles["db"].url)
        cache = redis.asyncio.Redis.from_url(handles["cache"].url)
        try:
            answer, _ = await asyncio.gather(
                connection.fetchval("SELECT 6 * 7"), cache.set("greeting", "hello")
            )
            print("PostgreSQL says", answer)
            print("Redis says", (await cache.get("greeting")).decode())
        finally:
            await cache.aclose()
            await connection.close()
    counting.cancel()


if __name__ == "__main__":
    asyncio.run(main())
