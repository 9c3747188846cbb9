"""The command line: `btard-launch [COMMAND] [OPTIONS]`."""
