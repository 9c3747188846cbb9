"""Byzantine nodes: an honest peer between two filters, and the attacks that steer them."""
