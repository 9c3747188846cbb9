"""What all honest peers agree on between two steps, and how it goes on and back."""
