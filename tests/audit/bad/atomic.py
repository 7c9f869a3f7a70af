"""Django's transactions, and asyncpg's pool asked twice."""

import asyncpg
import requests
from django.db import transaction
from shop.models import Order


def pay(request):
    with transaction.atomic():
        order = Order.objects.get(pk=1)
        requests.post("https://pay.example", timeout=5)  # expect: PEN501
        order.save()


async def twice(pool: asyncpg.Pool):
    async with pool.acquire() as conn:
        await conn.execute("SELECT 1")
        await pool.execute("SELECT 1")  # expect: PEN502
