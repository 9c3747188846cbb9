"""One node of the cluster: the protocol, what it computes, what carries its messages, what it keeps."""

if __name__ == "node":  # imported from a clone by its name of version 0.1
    from btard import moved

    moved.alias(__name__)
