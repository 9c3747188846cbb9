"""Every error this project raises, at a glance.

BtardError
├── ConfigError          what the user asked for cannot be run          (exit 2)
│   └── PluginError      an attack, rule or task breaks its interface   (exit 2 before a run, 1 during it)
├── DataError            a data set is missing, truncated or corrupt     (exit 3)
├── BackendError         processes, ports, disk, devices                 (exit 3)
├── TransportError       a socket cannot be bound or a peer not reached
├── WireError            a frame breaks the framing rules
├── LocalProtocolError   our own bug: the core was used against its rules
└── CheckpointError      a saved state cannot be read back

A peer's misconduct is data, never an exception: it becomes a ban or a counted drop.
"""


class BtardError(Exception):
    """Root of all errors a caller may want to catch."""


class ConfigError(BtardError):
    """The configuration is not runnable; the message names the option, the value and what to use."""


class PluginError(ConfigError):
    """An attack, a rule or a task breaks its interface; the message names it, what it did and what it should do."""


class DataError(BtardError):
    """A data file is missing, truncated or corrupt; the message names the file and the repair command."""


class BackendError(BtardError):
    """The place to run in does not work: a busy port, a full disk, a missing device."""


class TransportError(BtardError):
    """A socket could not be bound, connected or authenticated."""


class WireError(BtardError):
    """Bytes from the network that break the framing or the size limits."""


class LocalProtocolError(BtardError):
    """The protocol core was driven against its own rules: a bug on our side."""


class CheckpointError(BtardError):
    """A saved state does not match what it claims to be."""
