"""AWS Lambda and its kind: a pool outside of the handler, in a process that is frozen between two events.

    pool = Pool(os.environ["DSN"], min_size=0, max_size=1, open=True)

    @aws_lambda.handler(pool)
    def handler(event, context):
        with pool.connection() as conn:
            ...

What is frozen can give nothing back. So what is to be given back is given back before the handler's answer goes out.
"""

from .environment import Environment
from .handler import handler

__all__ = ["Environment", "handler"]
