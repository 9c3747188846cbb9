"""One file per task; `node.training.registry` imports every module of this package."""
