"""Tasks (model, data and loss), the optimiser, and the environment that makes gradients repeat bit for bit."""
