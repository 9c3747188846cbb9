"""How long attackers stay: the law that the protocol's draws follow, which runs are compared with. No node needs it."""

from launcher.detection.law import Detection, Setting, detection_distribution, per_step_probability
from launcher.detection.waiting import Waiting

__all__ = ["Detection", "Setting", "Waiting", "detection_distribution", "per_step_probability"]
