"""What looks like it."""

import asyncpg
import psycopg2
import requests
from django.db import transaction
from shop.models import Order


def pay(request):
    answer = requests.post("https://pay.example", timeout=5)
    with transaction.atomic():
        order = Order.objects.get(pk=1)
        order.receipt = answer.text
        order.save()


async def once(pool: asyncpg.Pool):
    await pool.execute("SELECT 1")
    async with pool.acquire() as conn:
        await conn.execute("SELECT 1")


class Swimmers:
    def getconn(self):
        return 1

    def putconn(self, one):
        return one


class Lanes:
    def __init__(self):
        self.pool = Swimmers()

    def swim(self, whistle):
        one = self.pool.getconn()
        whistle.blow(1)
        self.pool.putconn(one)


def follow(dsn):
    conn = psycopg2.connect(dsn, connect_timeout=5)
    try:
        while True:
            try:
                conn.cursor().execute("UPDATE seen SET at = now()")
                conn.commit()
            except psycopg2.OperationalError:
                conn.close()
                conn = psycopg2.connect(dsn, connect_timeout=5)
    finally:
        conn.close()
