"""Accusations and their verdicts: pure functions of the transcript, the published bytes and recomputation."""
