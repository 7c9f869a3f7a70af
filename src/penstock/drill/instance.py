"""One instance of the service: a process with an arm of its own, its load, and what it reports."""

import logging
import os
import threading
import time
from multiprocessing.connection import Connection

from penstock.drill.arms.arm import Arm
from penstock.drill.clients import Clients
from penstock.drill.failure import CannotStart
from penstock.drill.ledger import Ledger
from penstock.drill.orders import Orders
from penstock.drill.service import Service
from penstock.drill.shape import ClosedLoop

REPORT_SECONDS = 0.1


def run(orders: Orders, pipe: Connection) -> None:
    """Start the arm, wait for the word, load it until the time is over, report all the while, and stop."""
    # The arms' own warnings would run through the live table; the figures tell them all.
    logging.getLogger().addHandler(logging.NullHandler())
    try:
        arm = orders.arm(orders.dsn, orders.pool_size)
        arm.start()
    except CannotStart as error:
        pipe.send(str(error))
        return
    except Exception as error:
        pipe.send(f"{orders.arm.title}: {type(error).__name__}: {error}")
        return
    pipe.send(None)
    try:
        origin = pipe.recv()
    except EOFError:  # whoever drills is gone
        return
    threading.Thread(target=_end_with_parent, args=(pipe,), daemon=True).start()
    ledger = Ledger(origin)
    load = _load(orders, arm, ledger)
    load.start()
    while load.busy() and ledger.now() <= orders.seconds + orders.patience:
        time.sleep(REPORT_SECONDS)
        pipe.send(ledger.collect())
    pipe.send(ledger.unanswered())
    pipe.send(None)
    arm.stop()
    os._exit(0)  # clients that still wait would keep the process


def _load(orders: Orders, arm: Arm, ledger: Ledger) -> Clients | Service:
    if isinstance(orders.shape, ClosedLoop):
        return Clients(orders, orders.shape.think, arm, ledger)
    return Service(orders, orders.shape.workers, arm, ledger)


def _end_with_parent(pipe: Connection) -> None:
    try:
        pipe.recv()
    except (EOFError, OSError):
        os._exit(1)
