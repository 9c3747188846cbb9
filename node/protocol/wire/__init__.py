"""Messages: their structures, canonical bytes, sizes, checks, and certificates made of them."""
