"""How many processes there are is read from command lines, compose files and manifests, at the worst moment."""

import textwrap
from pathlib import Path

import pytest

from penstock.budget.readers import command, compose, dockerfile, kubernetes
from penstock.budget.readers.facts import Command, Environment, Fact, Place, Runs, Unreadable
from support.project import held_against, the_use, unknown

HERE = Place("here", 1)


def started(words: str | list[str], **environment: str | None) -> Command:
    found = command.read(words, HERE, Environment(environment))
    assert found is not None
    return found


def value(fact: Fact | None) -> int | None:
    return None if fact is None else fact.value


@pytest.mark.parametrize(
    ("words", "runner", "processes", "threads"),
    [
        ("gunicorn app:app --workers 4 --threads 8", "gunicorn", 4, 8),
        ("gunicorn app:app -w4", "gunicorn", 4, None),
        ("gunicorn -w 2 -w 6 app:app", "gunicorn", 6, None),
        ("/venv/bin/python -m gunicorn app:app --workers=3", "gunicorn", 3, None),
        ("sh -c 'python manage.py migrate && exec gunicorn shop.wsgi -w 5'", "gunicorn", 5, None),
        (["sh", "-c", "gunicorn app:app -w ${WORKERS:-7}"], "gunicorn", 7, None),
        ("poetry run gunicorn app:app -w 2", "gunicorn", 2, None),
        ("newrelic-admin run-program gunicorn app:app -w 2", "gunicorn", 2, None),
        ("PORT=80 env A=1 gunicorn app:app -w 2", "gunicorn", 2, None),
        ("gunicorn app:app", "gunicorn", None, None),
        ("uvicorn app:app", "uvicorn", 1, None),
        ("uvicorn app:app --workers 6", "uvicorn", 6, None),
        ("hypercorn -w 3 app:app", "hypercorn", 3, None),
        ("celery -A app worker --concurrency=16", "celery", 16, 1),
        ("celery -A app worker --autoscale 10,3", "celery", 10, 1),
        ("celery -A app worker", "celery", None, 1),
        ("celery -A app worker -P threads -c 20", "celery", 1, 20),
        ("celery -A app worker -P gevent -c 100", "celery", 1, 100),
        ("celery -A app worker -P solo -c 8", "celery", 1, 1),
        ("celery -A app beat", "celery", 1, 1),
        ("dramatiq app -p 4 -t 3", "dramatiq", 4, 3),
        ("nginx -g 'daemon off;'", "nginx", None, None),
    ],
)
def test_a_command_says_how_many(words: str, runner: str, processes: int | None, threads: int | None) -> None:
    found = started(words)
    assert (found.runner, value(found.processes), value(found.threads)) == (runner, processes, threads)


def test_web_concurrency_is_a_default_and_a_flag_goes_before_it() -> None:
    assert value(started("uvicorn app:app", WEB_CONCURRENCY="5").processes) == 5
    assert value(started("uvicorn app:app --workers 2", WEB_CONCURRENCY="5").processes) == 2
    secret = started("uvicorn app:app", WEB_CONCURRENCY=None).processes
    assert secret is not None
    assert (secret.value, secret.said) == (None, "WEB_CONCURRENCY is set where penstock cannot look")


def test_gunicorn_s_own_variable_is_a_command_line_and_the_real_one_wins() -> None:
    assert value(started("gunicorn app:app", GUNICORN_CMD_ARGS="--workers 9").processes) == 9
    assert value(started("gunicorn -w 2 app:app", GUNICORN_CMD_ARGS="--workers 9").processes) == 2


def test_a_line_that_is_none_is_no_command() -> None:
    assert command.read("gunicorn 'unclosed", HERE) is None
    assert command.read("", HERE) is None


@pytest.mark.parametrize(
    ("worker", "threads", "connections", "most", "endless"),
    [
        (None, None, None, 1, False),
        ("sync", 4, None, 4, False),
        ("gthread", 4, None, 4, False),
        ("gevent", None, None, 1000, False),
        ("gevent", None, 50, 50, False),
        ("uvicorn.workers.UvicornWorker", 4, None, None, True),
        ("uvicorn_worker.UvicornWorker", None, None, None, True),
        ("ours.Worker", 4, None, None, False),
    ],
)
def test_what_threads_mean_depends_on_the_worker_class(
    worker: str | None, threads: int | None, connections: int | None, most: int | None, endless: bool
) -> None:
    def fact(number: int | None) -> Fact | None:
        return None if number is None else Fact(number, HERE, "")

    found = command.gunicorn_threads(worker, fact(threads), fact(connections), HERE)
    assert (found.value, found.endless) == (most, endless)


# ---------------------------------------------------------------------------------------------- compose


def composed(text: str, **near: str) -> dict[str, Runs]:
    found = compose.read(textwrap.dedent(text), "compose.yaml", near.get)
    return {each.name: each for each in found}


COMPOSE = """
x-base: &base
  environment: {WEB_CONCURRENCY: 3, DB_POOL: "${POOL:-6}", PLAIN: null}
services:
  web:
    <<: *base
    build: ./backend
    command: gunicorn app:app
    deploy:
      replicas: 6
      update_config:
        order: start-first
        parallelism: 2
  jobs:
    image: shop
    command: ["celery", "-A", "app", "worker", "-c", "4"]
    scale: 3
    environment:
      - DB_POOL=9
  every-node:
    image: shop
    deploy: {mode: global}
  all-at-once:
    image: shop
    deploy: {replicas: 5, update_config: {order: start-first, parallelism: 0}}
  entry:
    build: {context: ., dockerfile: Dockerfile.web}
    entrypoint: ["uvicorn"]
    command: ["app:app", "--workers", "4"]
  db:
    image: postgres:18
"""


def test_compose_replicas_surge_command_and_environment() -> None:
    found = composed(COMPOSE)
    web, jobs = found["web"], found["jobs"]
    assert (value(web.replicas), value(web.surge), web.directory, web.ours) == (6, 2, "./backend", True)
    assert str(web.replicas.place) == "compose.yaml:10"  # type: ignore[union-attr]
    assert dict(web.environment.values) == {"WEB_CONCURRENCY": "3", "DB_POOL": "6", "PLAIN": None}
    assert (value(jobs.replicas), value(jobs.surge)) == (3, 0)
    assert jobs.command is not None
    assert (jobs.command.runner, value(jobs.command.processes)) == ("celery", 4)
    assert value(found["db"].replicas) == 1
    assert found["entry"].dockerfile == "Dockerfile.web"
    assert value(found["entry"].command.processes) == 4  # type: ignore[union-attr]


def test_compose_what_a_deploy_adds_is_bounded_by_what_there_is_and_zero_means_all() -> None:
    assert value(composed(COMPOSE)["all-at-once"].surge) == 5


def test_compose_one_on_each_node_is_not_known() -> None:
    assert value(composed(COMPOSE)["every-node"].replicas) is None


def test_compose_variables_come_from_env_files_that_are_beside_it() -> None:
    text = """
    services:
      web:
        image: shop
        env_file: [web.env]
        deploy: {replicas: "${REPLICAS}"}
    """
    near = {".env": "REPLICAS=4\n", "web.env": "# pools\nexport DB_POOL='8'  \nPASSWORD=s3cret # mine\n"}
    web = composed(text, **near)["web"]
    assert (value(web.replicas), web.environment.get("DB_POOL"), web.environment.complete) == (4, "8", True)
    assert "s3cret" not in repr(web)
    without = composed(text)["web"]
    assert (value(without.replicas), without.environment.complete) == (None, False)


def test_a_dockerfile_says_what_runs_when_nobody_else_does() -> None:
    text = """\
    FROM python:3.13 AS build
    CMD ["false"]
    FROM python:3.13-slim
    ENV WEB_CONCURRENCY=4 OTHER="a b"
    ENTRYPOINT ["tini", "--"]
    CMD ["gunicorn", \\
         "app:app"]
    """
    found, environment = dockerfile.read(textwrap.dedent(text), "Dockerfile", Environment({"OTHER": "c"}))
    assert found is not None
    assert found.runner == "gunicorn"
    assert dict(environment.values) == {"WEB_CONCURRENCY": "4", "OTHER": "c"}
    earlier, environment = dockerfile.read("FROM a\nENV N=1\nCMD gunicorn app:app -w 9\nFROM b\n", "Dockerfile")
    assert earlier is None  # what an earlier stage would run does not run
    assert not environment.values
    shell, _ = dockerfile.read("CMD exec uvicorn app:app --workers 3\n", "Dockerfile")
    assert shell is not None
    assert value(shell.processes) == 3


# ---------------------------------------------------------------------------------------------- kubernetes


def manifests(*texts: str) -> dict[str, Runs]:
    found = kubernetes.Manifests()
    for number, text in enumerate(texts):
        found.read(textwrap.dedent(text), f"k8s/{number}.yaml")
    return {each.name: each for each in found.joined()}


DEPLOYMENT = """
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
spec:
  replicas: 10
  template:
    metadata: {labels: {app: shop}}
    spec:
      containers:
        - name: proxy
          image: cloud-sql-proxy
          args: ["--port=5432"]
        - name: app
          image: shop
          command: ["gunicorn"]
          args: ["app:app", "--workers", "$(WORKERS)"]
          envFrom: [{configMapRef: {name: settings}}]
          env:
            - {name: WORKERS, value: "3"}
            - {name: PASSWORD, valueFrom: {secretKeyRef: {name: s, key: k}}}
            - {name: DB_POOL, valueFrom: {configMapKeyRef: {name: settings, key: pool}}}
"""
SETTINGS = """
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {pool: "12", MODE: production}
"""


def test_a_deployment_has_its_replicas_and_a_quarter_more_in_a_deploy() -> None:
    web = manifests(DEPLOYMENT, SETTINGS)["web"]
    assert (value(web.replicas), str(web.replicas.place)) == (10, "k8s/0.yaml:7")  # type: ignore[union-attr]
    assert value(web.surge) == 3
    assert web.names == ("web", "shop", "app")
    assert value(web.command.processes) == 3  # type: ignore[union-attr]
    assert web.environment.get("DB_POOL") == "12"
    assert (web.environment.complete, web.environment.knows("PASSWORD")) == (True, False)


def test_variables_from_a_map_that_is_not_here_make_all_of_them_uncertain() -> None:
    assert not manifests(DEPLOYMENT)["web"].environment.complete


AUTOSCALER = """
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: web}
spec:
  scaleTargetRef: {kind: Deployment, name: web}
  minReplicas: 2
  maxReplicas: 40
"""


def test_an_autoscaler_s_maximum_goes_before_the_replicas_and_surge_follows_it() -> None:
    web = manifests(AUTOSCALER, DEPLOYMENT)["web"]
    assert (value(web.replicas), value(web.surge)) == (40, 10)
    keda = AUTOSCALER.replace("HorizontalPodAutoscaler", "ScaledObject").replace("  maxReplicas: 40\n", "")
    assert value(manifests(DEPLOYMENT, keda)["web"].replicas) == 100
    other = AUTOSCALER.replace("kind: Deployment, name: web", "kind: Deployment, name: other")
    assert value(manifests(DEPLOYMENT, other)["web"].replicas) == 10


def workload(kind: str, spec: str) -> Runs:
    (found,) = manifests(f"apiVersion: apps/v1\nkind: {kind}\nmetadata: {{name: it}}\nspec: {spec}\n").values()
    return found


@pytest.mark.parametrize(
    ("kind", "spec", "replicas", "surge"),
    [
        ("Deployment", "{}", 1, 1),
        ("Deployment", "{replicas: 0}", 0, 0),
        ("Deployment", "{replicas: 9}", 9, 3),
        ("Deployment", "{replicas: 9, strategy: {type: Recreate}}", 9, 0),
        ("Deployment", "{replicas: 9, strategy: {rollingUpdate: {maxSurge: 2}}}", 9, 2),
        ("Deployment", "{replicas: 9, strategy: {rollingUpdate: {maxSurge: 100%}}}", 9, 9),
        ("Deployment", "{replicas: 9, strategy: {rollingUpdate: {maxSurge: 0}}}", 9, 0),
        ("Deployment", "{replicas: '{{ n }}'}", None, None),
        ("Deployment", "{replicas: 9, strategy: {rollingUpdate: {maxSurge: some}}}", 9, None),
        ("StatefulSet", "{replicas: 9}", 9, 0),
        ("ReplicaSet", "{replicas: 9}", 9, 0),
        ("DaemonSet", "{}", None, None),
        ("Job", "{parallelism: 6}", 6, 0),
        ("CronJob", "{concurrencyPolicy: Forbid, jobTemplate: {spec: {parallelism: 5}}}", 5, 0),
    ],
)
def test_every_kind_of_workload(kind: str, spec: str, replicas: int | None, surge: int | None) -> None:
    found = workload(kind, spec)
    assert (value(found.replicas), value(found.surge)) == (replicas, surge)


def test_runs_of_a_cron_job_may_overlap_unless_it_says_otherwise() -> None:
    assert [each.said for each in workload("CronJob", "{}").doubts] == [
        "its runs may overlap without limit: set concurrencyPolicy: Forbid"
    ]
    assert workload("CronJob", "{concurrencyPolicy: Replace}").doubts == ()


def test_a_list_of_manifests_and_several_documents_in_a_file() -> None:
    text = "kind: List\nitems:\n- {kind: Deployment, metadata: {name: a}}\n---\nkind: Deployment\nmetadata: {name: b}\n"
    assert set(manifests(text)) == {"a", "b"}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("kind: x\nreplicas: {{ .Values.n }}\n", "a template. Render it first"),
        ("kind: [\n", "not valid YAML"),
        ("a: &a [1]\nb: !!python/object/apply:os.system ['false']\n", ""),
    ],
)
def test_what_is_no_yaml_is_said_with_its_line(text: str, why: str) -> None:
    found = kubernetes.Manifests()
    if not why:
        found.read(text, "x.yaml")  # an object of Python is text to us, and nothing is made of it
        assert not found.workloads
        return
    with pytest.raises(Unreadable, match=why) as caught:
        found.read(text, "x.yaml")
    assert str(caught.value).startswith("x.yaml:")


def test_aliases_that_expand_to_billions_are_refused() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    with pytest.raises(Unreadable, match="expands to more than can be read"):
        kubernetes.Manifests().read("\n".join(lines), "x.yaml")


def test_an_alias_of_itself_is_refused() -> None:
    with pytest.raises(Unreadable):
        kubernetes.Manifests().read("a: &a\n  b: *a\n", "x.yaml")


# ---------------------------------------------------------------------------------------------- a directory


CODE = "from sqlalchemy import create_engine\ne = create_engine('postgresql://db', pool_size=1, max_overflow=0)\n"


def test_dependencies_tests_and_tools_are_not_the_application(tmp_path: Path) -> None:
    big = CODE.replace("pool_size=1", "pool_size=900")
    places = ["venv/a.py", "node_modules/a.py", ".git/a.py", "tests/a.py", "env/b.py", "app/test_a.py", "conftest.py"]
    files = {"app/db.py": CODE, "env/pyvenv.cfg": "home = x\n", **dict.fromkeys(places, big)}
    assert the_use(held_against(tmp_path, files)).each == 1


def test_a_broken_file_is_unknown_and_the_rest_is_read(tmp_path: Path) -> None:
    (tmp_path / "latin.py").write_bytes(b"x = '\xff'\n")
    files = {"app/db.py": CODE, "app/broken.py": "def create_pool(:\n"}
    files["k8s/web.yaml"] = "apiVersion: v1\nkind: {{ x }}\n"
    reading = held_against(tmp_path, files)
    assert the_use(reading).each == 1
    said = {each.place.file.removeprefix(f"{tmp_path}/"): each.what for each in reading.findings}
    assert said["latin.py"] == "not read: it is not UTF-8"
    assert said["app/broken.py"].startswith("not read, no valid Python")
    assert said["k8s/web.yaml"].startswith("not read: a template?")
    assert reading.fits is None


def test_without_pyyaml_manifests_are_unknown_and_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "yaml", None)
    reading = held_against(tmp_path, {"app/db.py": CODE, "compose.yaml": "services: {web: {build: .}}\n"})
    assert unknown(reading) == ["not read, that needs PyYAML: pip install 'penstock[plan]'"]


def test_a_link_in_a_circle_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "again").symlink_to(tmp_path)
    assert the_use(held_against(tmp_path, {"app/db.py": CODE})).each == 1
