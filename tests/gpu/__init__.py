"""What only a real GPU can show; `make gpu` runs it."""
