"""`btard-launch verify`: what a run directory proves, in verdicts and in words."""
