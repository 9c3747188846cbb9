"""What a node writes: its journal, its checkpoints, its write-ahead log, and the way back from them."""
