"""The four Grafana dashboards: JSON as Grafana loads it, and the code that builds it."""
