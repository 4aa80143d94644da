"""Which runs of a workspace are finished; found without the model libraries, so that a wrong id is refused at once."""

from pathlib import Path

from peso.errors import WorkspaceError

RESULT = "result.json"
"""Written last of all files of a run."""


def finished_run(workspace: Path, run_id: str | None) -> Path:
    """The folder of a finished run: a given one, or the one finished last.

    Raises:
        WorkspaceError: there is none, or not this one.
    """
    finished = sorted((workspace / "runs").glob(f"*/{RESULT}"), key=lambda path: path.stat().st_mtime)
    names = [path.parent.name for path in finished]
    if not names:
        raise WorkspaceError(f"workspace {workspace} holds no finished run; use `peso run` first.")
    if run_id is None:
        return finished[-1].parent
    if run_id not in names:
        raise WorkspaceError(f"run {run_id!r} is not a finished run of {workspace}; there are: {', '.join(names)}.")
    return workspace / "runs" / run_id
