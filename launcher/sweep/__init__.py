"""Many runs from one command: a grid over any option, resumable, within a budget of cores."""
