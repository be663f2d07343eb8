"""The counters for `prometheus_client`.

    prometheus_client.REGISTRY.register(tokenward.prometheus.Collector(introspector))
"""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector as Base

from ._introspector import Introspector

__all__ = ["Collector"]


class Collector(Base):
    """Collects what `Introspector.metrics` says."""

    def __init__(self, introspector: Introspector) -> None:
        self._introspector = introspector

    def collect(self) -> Iterable[Metric]:
        return text_string_to_metric_families(self._introspector.metrics())
