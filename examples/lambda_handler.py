"""A handler for AWS Lambda, and five events for it, one after the other, as the platform would send them.

    DSN=postgresql://localhost/postgres .venv/bin/python examples/lambda_handler.py

Deployed, its name is lambda_handler.handler. See docs/lambda.md.
"""

import os
from typing import Any

from penstock import Pool
from penstock.integrations import aws_lambda

# Outside of the handler, so that it outlives one event. It connects when the first one needs it.
pool = Pool(os.environ["DSN"], min_size=0, max_size=1, open=True, name="orders")


@aws_lambda.handler(pool)
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    with pool.connection() as conn:
        row = conn.execute("SELECT %s * 2, pg_backend_pid()", (event["number"],)).fetchone()
    assert row is not None
    return {"double": row[0], "backend": row[1]}


if __name__ == "__main__":
    answers = [handler({"number": number}, None) for number in range(5)]
    assert [answer["double"] for answer in answers] == [0, 2, 4, 6, 8]
    print(f"{len(answers)} events over {len({answer['backend'] for answer in answers})} connections")
