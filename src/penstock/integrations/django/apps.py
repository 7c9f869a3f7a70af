"""The app, for its management command."""

from __future__ import annotations

from django.apps import AppConfig  # type: ignore[import-untyped]


class PenstockConfig(AppConfig):  # type: ignore[misc]
    name = "penstock.integrations.django"
    label = "penstock"
    verbose_name = "Penstock"
