"""Views that use the database in each way that Django has."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

from django.db import connection, transaction
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.urls import path

from .models import Order


def plain(request: HttpRequest) -> HttpResponse:
    with transaction.atomic():
        return HttpResponse(str(Order.objects.count()))


async def asynchronous(request: HttpRequest) -> HttpResponse:
    first, count = await asyncio.gather(Order.objects.afirst(), Order.objects.acount())
    return HttpResponse(f"{first.name if first else None} {count}")


def streamed(request: HttpRequest) -> StreamingHttpResponse:
    return StreamingHttpResponse(f"{each.name}\n" for each in Order.objects.order_by("id").iterator(chunk_size=2))


def in_threads(request: HttpRequest) -> HttpResponse:
    with ThreadPoolExecutor(2) as threads:
        return HttpResponse(str(sum(threads.map(lambda _: Order.objects.count(), range(4)))))


def session(request: HttpRequest) -> HttpResponse:
    with connection.cursor() as cursor:
        cursor.execute("SELECT connection_id()" if connection.vendor == "mysql" else "SELECT pg_backend_pid()")
        return HttpResponse(str(cursor.fetchone()[0]))


urlpatterns = [
    path("plain", plain),
    path("async", asynchronous),
    path("streamed", streamed),
    path("threads", in_threads),
    path("session", session),
]
