"""A systematic adversary over the real `Peer`: a light network, a choice language, an oracle of its own, a search."""
