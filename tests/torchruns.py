"""Runs of two processes."""

import os
import subprocess
import sys
from pathlib import Path

from peso.config import RunConfig, dump_config

_TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "peso"]


def start(workspace: Path, config: RunConfig, *flags: str) -> subprocess.Popen[bytes]:
    """`torchrun -m peso run` in the background, in a process group of its own."""
    file = workspace.parent / "config.toml"
    file.write_text(dump_config(config))
    command = [*_TORCHRUN, "run", "--workspace", str(workspace), "--config", str(file), *flags]
    return subprocess.Popen(
        command,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
