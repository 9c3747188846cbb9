"""What peers do when they may have seen different things: views, their agreement, and what follows from it."""
