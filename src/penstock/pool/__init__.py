"""Two thin shells round the core: `sync` for threads, `aio` for asyncio."""
