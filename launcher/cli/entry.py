"""How both programs end: every error is one line on stderr, every ending has its exit code."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

import click

from btard.launcher import exits, wrap
from btard.node.errors import BackendError, BtardError, ConfigError, DataError


def call(
    command: click.Command,
    program: str,
    arguments: Sequence[str] | None,
    *,
    interrupted: str = "nothing was started",
    leave: Callable[[int], NoReturn] = sys.exit,
) -> NoReturn:
    """Run a program's command line and end the process.

    Args:
        command: all of its commands.
        program: its name.
        arguments: None: the process's.
        interrupted: what to say where a user broke off before anything began.
        leave: ends the process with an exit code.
    """
    try:
        code = command.main(args=arguments, prog_name=program, standalone_mode=False)
    except click.exceptions.Abort as error:
        click.echo(f"interrupted: {interrupted}", err=True)
        code = exits.SIGNALLED + getattr(error.__cause__, "signum", 2)
    except click.ClickException as error:
        code = _fail(error.format_message(), exits.USAGE)
    except ConfigError as error:
        code = _fail(str(error), exits.USAGE)
    except (BackendError, DataError) as error:
        code = _fail(str(error), exits.PREFLIGHT)
    except BtardError as error:
        code = _fail(str(error), exits.FAILED)
    leave(code if isinstance(code, int) else exits.OK)


def _fail(message: str, code: int) -> int:
    wrap.echo(f"error: {' '.join(message.split())}", err=True)
    return code
