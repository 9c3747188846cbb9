"""What performs a peer's outputs and feeds it inputs: the real loop, and the simulator."""
