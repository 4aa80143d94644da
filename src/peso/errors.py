"""Every exception that peso raises on purpose.

Each one carries a single sentence for the person who made the mistake: what is wrong, where it is, and what to do
about it. The command line prints that sentence and exits with code 2; anything that is not a `PesoError` is a bug.
"""


class PesoError(Exception):
    """Base of all errors that a user can cause and mend."""


class DataError(PesoError):
    """The interaction data or the item catalogue is not what the format says."""


class ConfigError(PesoError):
    """A configuration value is missing, unknown, or outside its range."""


class WorkspaceError(PesoError):
    """A workspace, run, or checkpoint is missing, incomplete, or belongs to other data."""


class TrainingError(PesoError):
    """Training cannot go on with this configuration."""


class InstallationError(PesoError):
    """A library that an option needs is not installed."""
