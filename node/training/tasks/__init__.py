"""One file per task; `btard.node.training.registry` imports every module of this package."""
