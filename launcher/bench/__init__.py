"""`btard-launch bench`: what a step costs, against gloo's all-reduce and a plain mean, measured in one run."""
