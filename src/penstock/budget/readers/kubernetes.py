"""Kubernetes manifests: how many pods there are at most, what they run, and how many more a rolling deploy starts.

From the Kubernetes API reference: a Deployment has 1 replica and a maxSurge of 25 % by default, which rounds up; a
StatefulSet replaces each pod after stopping it. A HorizontalPodAutoscaler's maxReplicas goes before the
replicas of what it scales, and a KEDA ScaledObject's maxReplicaCount, 100 by default.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from ..formula import extra_instances
from . import command
from .facts import Environment, Fact, Place, Runs, shown
from .marked import Marked, documents

SURGE = "25%"
SCALED_OBJECT = 100  # KEDA's maxReplicaCount when it is not given
_WORKLOADS = ("Deployment", "StatefulSet", "ReplicaSet", "ReplicationController", "DaemonSet", "Job", "CronJob")


@dataclass(frozen=True, slots=True)
class Scales:
    """An autoscaler: what it scales, and how far."""

    kind: str
    name: str
    most: Fact


@dataclass(frozen=True, slots=True)
class Pods:
    """A workload before autoscalers and config maps of other files are joined to it (`joined`).

    :ivar surge: maxSurge as it stands there, and where.
    :ivar containers: one beside another in each pod.
    """

    kind: str
    name: str
    labels: tuple[str, ...]
    place: Place
    replicas: Fact
    surge: tuple[Any, Place]
    containers: tuple[Marked, ...]
    doubts: tuple[Fact, ...] = ()


@dataclass(slots=True)
class Manifests:
    """What all manifests of a directory say."""

    workloads: list[Pods] = field(default_factory=list)
    autoscalers: list[Scales] = field(default_factory=list)
    config: dict[str, dict[str, str | None]] = field(default_factory=dict)

    def read(self, text: str, file: str) -> None:
        """Add the documents of one file. Raises Unreadable."""
        for document in documents(text, file):
            self._add(document, file)

    def joined(self) -> Iterator[Runs]:
        """Each workload as a program; several when several containers of a pod are ours."""
        for pods in self.workloads:
            for scaler in self.autoscalers:
                if (scaler.kind, scaler.name) == (pods.kind, pods.name):
                    pods = replace(pods, replicas=scaler.most)
            programs = [self._program(pods, each) for each in pods.containers]
            yield from [each for each in programs if each.ours] or programs[:1]

    def _add(self, document: Marked, file: str) -> None:
        kind = document.get("kind")
        if kind == "List":
            for each in document.items_of("items"):
                self._add(each, file)
        elif kind == "ConfigMap" and isinstance(name := document.at("metadata", "name"), str):
            data = document.table("data")
            self.config[name] = {key: str(value) for key, value in data.items()}
        elif kind in ("HorizontalPodAutoscaler", "ScaledObject"):
            self._add_autoscaler(document, file, str(kind))
        elif kind in _WORKLOADS:
            self.workloads.append(_workload(document, file, str(kind)))

    def _add_autoscaler(self, document: Marked, file: str, kind: str) -> None:
        key = "maxReplicas" if kind == "HorizontalPodAutoscaler" else "maxReplicaCount"
        target = document.table("spec", "scaleTargetRef")
        place = Place(file, document.line_of("spec", key))
        most = document.at("spec", key)
        if most is None and kind == "ScaledObject":
            most = SCALED_OBJECT
        said = f"{key}: {most}" if isinstance(most, int) else f"{key} is no whole number"
        fact = Fact(most if isinstance(most, int) else None, place, said)
        self.autoscalers.append(Scales(str(target.get("kind", "Deployment")), str(target.get("name")), fact))

    def _program(self, pods: Pods, container: Marked) -> Runs:
        environment = self._environment(container)
        place = Place(pods.place.file, container.line_of("command" if "command" in container else "args"))
        words = [str(each) for key in ("command", "args") for each in _list(container.get(key))]
        # Kubernetes writes a variable as $(NAME); a shell inside the container as $NAME.
        words = [_kubernetes_variable(each) for each in words]
        started = command.read(words, place, environment) if words else None
        own = (str(container["name"]),) if container.get("name") else ()
        names = tuple(dict.fromkeys((pods.name, *pods.labels, *own)))
        return Runs(
            names, pods.kind, pods.place, pods.replicas, _surge(pods), started, environment,
            ours=started is not None and started.known, doubts=pods.doubts,
        )  # fmt: skip

    def _environment(self, container: Marked) -> Environment:
        values: dict[str, str | None] = {}
        complete = True
        for source in container.items_of("envFrom"):
            name = source.at("configMapRef", "name")
            known = self.config.get(name) if isinstance(name, str) else None
            prefix = str(source.get("prefix") or "")
            complete = complete and known is not None
            values |= {prefix + key: value for key, value in (known or {}).items()}
        for each in container.items_of("env"):
            reference = each.table("valueFrom", "configMapKeyRef")
            value = each.get("value")
            if reference:
                value = self.config.get(str(reference.get("name")), {}).get(str(reference.get("key")))
            values[str(each.get("name"))] = None if value is None else str(value)
        return Environment(values, complete)


def _workload(document: Marked, file: str, kind: str) -> Pods:
    name = str(document.at("metadata", "name") or "?")
    spec = document.table("spec")
    steps: tuple[str, ...] = ("template",)
    if kind == "CronJob":
        steps = ("jobTemplate", "spec", "template")
    labels = {**document.table("metadata", "labels"), **spec.table(*steps, "metadata", "labels")}
    called = tuple(str(labels[key]) for key in ("app.kubernetes.io/name", "app", "app.kubernetes.io/component")
                   if labels.get(key))  # fmt: skip
    place = Place(file, document.line_of("metadata", "name"))
    replicas = _replicas(spec, file, kind, place)
    surge = _max_surge(spec, file, kind)
    doubts: tuple[Fact, ...] = ()
    if kind == "CronJob" and spec.get("concurrencyPolicy", "Allow") == "Allow":
        where = Place(file, spec.line_of("concurrencyPolicy"))
        doubts = (Fact(None, where, "its runs may overlap without limit: set concurrencyPolicy: Forbid"),)
    containers = tuple(spec.items_of(*steps, "spec", "containers")) or (Marked(place.line),)
    return Pods(kind, name, called, place, replicas, surge, containers, doubts)


def _replicas(spec: Marked, file: str, kind: str, place: Place) -> Fact:
    if kind == "DaemonSet":
        return Fact(None, place, "a DaemonSet runs one on each node, and the file does not say how many there are")
    keys = {"Job": ("parallelism",), "CronJob": ("jobTemplate", "spec", "parallelism")}.get(kind, ("replicas",))
    value = spec.at(*keys)
    where = Place(file, spec.line_of(*keys)) if value is not None else place
    if value is None:
        return Fact(1, where, f"{keys[-1]}: 1 by default")
    if isinstance(value, int) and not isinstance(value, bool):
        return Fact(value, where, f"{keys[-1]}: {value}")
    return Fact(None, where, f"{keys[-1]}: {shown(value)} is no whole number")


def _max_surge(spec: Marked, file: str, kind: str) -> tuple[Any, Place]:
    where = Place(file, spec.line_of("strategy", "rollingUpdate", "maxSurge"))
    if kind == "DaemonSet":
        where = Place(file, spec.line_of("updateStrategy", "rollingUpdate", "maxSurge"))
        return spec.at("updateStrategy", "rollingUpdate", "maxSurge") or 0, where
    if kind != "Deployment" or spec.at("strategy", "type") == "Recreate":
        return 0, where
    given = spec.at("strategy", "rollingUpdate", "maxSurge")
    return (SURGE if given is None else given), where


def _surge(pods: Pods) -> Fact:
    given, place = pods.surge
    if pods.replicas.value is None:
        return Fact(None, place, f"maxSurge of a number that is not known: {pods.replicas.said}")
    try:
        value = extra_instances(given, pods.replicas.value)
    except (TypeError, ValueError):
        return Fact(None, place, f"maxSurge: {shown(given)} is neither a count nor a percentage")
    return Fact(value, place, f"maxSurge: {given}", percentage=given if isinstance(given, str) else None)


def _kubernetes_variable(word: str) -> str:
    return "$" + word[2:-1] if word.startswith("$(") and word.endswith(")") else word


def _list(value: Any) -> Iterable[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]
