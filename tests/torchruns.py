"""Runs of two processes."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from peso.config import RunConfig, dump_config
from processes import wait_for

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


def resume_after_a_kill(workspace: Path, config: RunConfig) -> None:
    """Kills one of two processes in block 1, which must end the other without a result, and resumes the run."""
    process = start(workspace, config)
    wait_for(workspace, "runs/*/checkpoint_block_1*.safetensors", lambda: process.poll() is None)
    children = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True)
    os.kill(int(children.stdout.split()[-1]), signal.SIGKILL)
    process.communicate(timeout=200)
    assert process.returncode != 0
    assert not list(workspace.glob("runs/*/result.json"))
    process = start(workspace, config, "--resume")
    process.communicate(timeout=400)
    assert process.returncode == 0
