"""Set up a Slurm of one node on this machine, run a command under it, and take it down: ``nox -s slurm``.

Needs root and Debian's packages slurm-wlm and munge. Nothing outside a temporary folder is changed.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CONF = """
ClusterName=alone
SlurmctldHost={host}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CryptoType=crypto/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SlurmctldPort=16817
SlurmdPort=16818
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
SchedulerParameters=batch_sched_delay=1,sched_interval=2,requeue_setup_env_fail
MinJobAge=60
JobRequeue=1
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def main() -> int:
    """Run the command line's arguments under a Slurm of one node."""
    missing = [name for name in ("slurmctld", "slurmd", "munged") if shutil.which(name) is None]
    if missing or os.geteuid() != 0:
        print(f"needs root, and Debian's slurm-wlm and munge; missing: {', '.join(missing) or 'root'}", file=sys.stderr)
        return 2
    host = socket.gethostname().partition(".")[0]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        folder.chmod(0o755)
        for name in ("state", "spool"):
            (folder / name).mkdir()
        key = folder / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)
        conf = folder / "slurm.conf"
        conf.write_text(CONF.format(host=host, folder=folder, cpus=os.cpu_count()))
        os.environ["SLURM_CONF"] = str(conf)
        munge = ["munged", "--foreground", "--force", f"--key-file={key}", f"--socket={folder}/munge.socket"]
        munge += [f"--pid-file={folder}/munged.pid", f"--log-file={folder}/munged.log", f"--seed-file={folder}/seed"]
        daemons = [_start(munge)]
        try:
            _wait_for(folder / "munge.socket")
            daemons.append(_start(["slurmctld", "-D", "-f", str(conf)]))
            daemons.append(_start(["slurmd", "-D", "-f", str(conf)]))
            _wait_until_idle(folder)
            return subprocess.run(sys.argv[1:], check=False).returncode
        finally:
            for daemon in reversed(daemons):
                daemon.terminate()
            for daemon in daemons:
                daemon.wait(timeout=30)


def _start(command: list[str]) -> subprocess.Popen[bytes]:
    """Start a daemon that writes its log to a file."""
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _wait_for(path: Path) -> None:
    deadline = time.monotonic() + 20
    while not path.exists():
        if time.monotonic() > deadline:
            raise SystemExit(f"{path} never came: {path.with_name('munged.log').read_text()}")
        time.sleep(0.1)


def _wait_until_idle(folder: Path) -> None:
    deadline = time.monotonic() + 60
    while True:
        state = subprocess.run(["sinfo", "-h", "-o", "%T"], check=False, capture_output=True, text=True)
        if state.stdout.strip() == "idle":
            return
        if time.monotonic() > deadline:
            logs = "\n".join(path.read_text()[-3_000:] for path in folder.glob("*.log"))
            raise SystemExit(f"Slurm never came up: {state.stdout} {state.stderr}\n{logs}")
        time.sleep(0.5)


if __name__ == "__main__":
    sys.exit(main())
