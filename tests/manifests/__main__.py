"""`python -m tests.manifests`: write the kept manifests anew."""

from __future__ import annotations

from tests.manifests import kept

for path, text in kept():
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
