"""The bytes between real peers: authenticated channels, flow control and the start of the conversation."""
