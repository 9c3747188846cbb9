"""Real containers: the committed compose file on whatever engine answers. Run by `pytest -m containers`."""
