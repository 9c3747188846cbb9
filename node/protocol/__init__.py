"""The protocol core: what a peer does with what it receives, without I/O.

`PROTOCOL section N`, here and everywhere in this project, is section N of docs/spec; docs/spec/README.md has the index.
"""
