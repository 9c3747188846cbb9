"""What goes into a peer and what comes out of it."""
