"""Following a run: its journals, the live view, the ground truth, Prometheus and Grafana."""
