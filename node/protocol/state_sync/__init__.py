"""How a peer that was away learns the agreed state and comes back."""
