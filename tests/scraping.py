"""Reading a `/metrics` as Prometheus does, for tests that need real values."""

from __future__ import annotations

import urllib.request
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import TypeAlias

from prometheus_client.parser import text_string_to_metric_families

PATIENCE_S = 60.0
Labels: TypeAlias = "tuple[tuple[str, str], ...]"
Values: TypeAlias = "dict[str, dict[Labels, float]]"


def scrape(address: str) -> Values:
    """Values by series name and sorted labels.

    Raises:
        OSError: nobody listens there.
    """
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=PATIENCE_S) as answer:
        return parse(answer.read().decode())


def parse(text: str) -> Values:
    """The same, from what was served."""
    found: Values = defaultdict(dict)
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found[sample.name][tuple(sorted(sample.labels.items()))] = sample.value
    return dict(found)


def with_labels(values: Mapping[Labels, float], **labels: str) -> Iterator[float]:
    """The values whose labels include `labels`."""
    wanted = set(labels.items())
    return (value for own, value in values.items() if wanted <= set(own))
