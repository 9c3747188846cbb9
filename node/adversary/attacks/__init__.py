"""What Byzantine nodes do: one file per attack, each a plain function that never touches honest code."""
