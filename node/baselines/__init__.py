"""The same training without the protocol: comparison runs and their topologies."""
