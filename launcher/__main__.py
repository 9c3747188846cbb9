"""`python -m btard.launcher`: the command `btard-launch`, where it is not on the path."""

from btard.launcher.cli.main import main

main()
