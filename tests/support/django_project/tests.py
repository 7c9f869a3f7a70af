"""What a user's own tests would be: run by Django's runner, on a database made for them, in several processes."""

import threading

from django.db import connection
from django.test import TestCase, TransactionTestCase

from penstock.integrations.django import pools

from .models import Order


class InTransaction(TestCase):
    @classmethod
    def setUpTestData(cls) -> None:
        Order.objects.create(name="first")

    def test_rolled_back_one(self) -> None:
        Order.objects.create(name="second")
        assert Order.objects.count() == 2

    def test_rolled_back_other(self) -> None:
        assert self.client.get("/plain").content == b"1"


class Committed(TransactionTestCase):
    def test_flushed(self) -> None:
        assert Order.objects.count() == 0
        Order.objects.create(name="first")
        assert self.client.get("/threads").content == b"4"

    def test_flushed_again(self) -> None:
        self.test_flushed()
        assert "test" in connection.settings_dict["NAME"]


class OnThreads(TransactionTestCase):
    def test_threads_that_nobody_closes_do_not_keep_the_test_database(self) -> None:
        threads = [threading.Thread(target=Order.objects.count) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert pools()["default"].snapshot().open <= 2
