"""What the report published, to stand beside ours: final test accuracies of its notebook, each the mean of three runs.

Source: "Byzantine Attacks in Distributed Training" (the report) and the output of the notebook that came with it.
"""

from __future__ import annotations

FINALS = {
    "aggressive": {"none": 0.9852, "noise": 0.9831, "label_shuffle": 0.9845, "sign_flip": 0.9843, "label_flip": 0.9842,
                   "constant_direction": 0.9776},
    "mild": {"none": 0.9851, "noise": 0.9850, "label_shuffle": 0.9855, "sign_flip": 0.9846, "label_flip": 0.9851,
             "constant_direction": 0.9835},
}  # fmt: skip

ABOUT_BANS = (
    "In the report's notebook, as in the code that it builds on, a ban is a coin toss inside the attacker: a "
    "function of the attacking worker draws a random number and then stops attacking. Nobody recomputes a "
    "gradient, nothing is signed, no honest worker can be accused, and a false accusation cannot happen. Here no "
    "process knows who attacks. A validator that all peers' coins drew together recomputes its target's gradient "
    "bit for bit, accuses, and everybody recomputes it again; the ban carries the signed messages that prove it, "
    "and `btard-launch verify` checks them from public keys and public data. So attackers here last as long as "
    "the law of the draw says, which differs from a coin's and counts in the accuracy: two attackers at once "
    "strike for about ten steps before both are gone."
)
