"""One attempt at one step: its phases, its messages and its tensors, and how it ends."""
