"""How long attackers stay: the law that the protocol's draws follow, which runs are compared with. No node needs it."""

from btard.launcher.detection.law import Detection, Setting, detection_distribution, per_step_probability, time_to_last
from btard.launcher.detection.markov import Waiting
from btard.launcher.detection.variants import Buying, Lasted, bought_draws

__all__ = [
    "Buying",
    "Detection",
    "Lasted",
    "Setting",
    "Waiting",
    "bought_draws",
    "detection_distribution",
    "per_step_probability",
    "time_to_last",
]
