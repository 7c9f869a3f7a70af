"""Penstock: `penstock.batch.for_each`."""

from typing import TYPE_CHECKING, Any, ClassVar

from penstock.drill.arms.errand import INSERT, Errand

if TYPE_CHECKING:
    import httpx

JOB = "drill"
CONCURRENCY = 48
TIMEOUT = 5.0  # of an API that answers within 20 ms, if it does


class PenstockBatch(Errand):
    """Many in flight, none of them holding a connection; each result and the word of it in one transaction."""

    name: ClassVar[str] = "penstock-batch"
    title: ClassVar[str] = "penstock.batch"
    judged: ClassVar[bool] = True
    package: ClassVar[str] = "httpx"

    def run(self, items: int, url: str) -> None:
        from penstock import Pool
        from penstock.batch import for_each

        def ask(number: int, http: "httpx.Client") -> Any:
            return http.get(f"/users/{number}").json()

        def save(connection: Any, number: int, user: Any) -> None:
            connection.execute(INSERT, (user["id"], user["name"]))

        with Pool(self._dsn, min_size=1, max_size=self._pool_size) as pool:
            for_each(
                range(items),
                ask,
                save=save,
                pool=pool,
                job=JOB,
                http={"base_url": url},
                concurrency=CONCURRENCY,
                timeout=TIMEOUT,
                progress=False,
            )
