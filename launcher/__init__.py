"""Starts, watches and scores a cluster; `import btard` has what programs use of it."""

if __name__ == "launcher":  # imported from a clone by its name of version 0.1
    from btard import moved

    moved.alias(__name__)
