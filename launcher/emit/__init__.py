"""Files that have an existing engine start a run: Compose, Kubernetes, JobSet, Slurm, Swarm."""
