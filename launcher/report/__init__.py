"""report.html: one self-contained file per run and per sweep."""
