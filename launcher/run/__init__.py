"""One run: what it is, what is settled before it starts, its course, its end and its score."""
