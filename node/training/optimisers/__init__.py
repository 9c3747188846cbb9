"""One file per optimiser; `btard.node.training.registry` imports every module of this package."""
