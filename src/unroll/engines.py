"""What runs the jobs of a multirun, Hydra's launchers: each is made ready before the first job, or
refused in one line."""

from __future__ import annotations

import os
import shutil
import signal
import socket
from collections.abc import Callable
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from unroll.errors import QUOTED, Refused, first_line, refuse_in_hydra, require

GROUP = "hydra/launcher"
THREADS = "OMP_NUM_THREADS"
"""Environment variable from which PyTorch takes its number of threads, in every new process."""
ANSWER_SECONDS = 10.0
"""How long a Ray cluster may take to accept a connection. Ray itself waits for two minutes."""
LOCAL_RAY = {
    "include_dashboard": False,  # it opens a port through which anyone on it can run code
    "object_store_memory": 78_643_200,  # the least that Ray accepts: jobs pass files, not objects
}


class Engine(Callback):
    """Makes the launcher of a multirun ready, before anything is written."""

    def on_multirun_start(self, config: DictConfig, **keywords: Any) -> None:
        prepare = PREPARE.get(config.hydra.runtime.choices[GROUP])
        try:
            if prepare is not None:
                prepare(config)
        except Refused as error:
            refuse_in_hydra(str(error))


def submitit_local(config: DictConfig) -> None:
    """As many jobs at a time as there are cores, which they share. submitit itself would start all
    of them at once, each with a thread for every core."""
    from joblib import cpu_count

    cores: int = cpu_count()
    sweeper = config.hydra.sweeper
    at_a_time = sweeper.get("max_batch_size") or cores
    if "max_batch_size" in sweeper:
        sweeper.max_batch_size = at_a_time
    os.environ.setdefault(THREADS, str(max(1, cores // at_a_time)))


def submitit_slurm(config: DictConfig) -> None:
    """A thread for each core that Slurm gives a job; without ``cpus_per_task`` it gives one.

    Raises:
        Refused: Slurm is not on this machine.
    """
    require(
        shutil.which("sbatch") and shutil.which("srun"),
        "hydra/launcher=submitit_slurm needs the commands sbatch and srun: start it on a machine "
        "from which Slurm takes jobs, or use hydra/launcher=submitit_local",
    )
    given = config.hydra.launcher
    os.environ.setdefault(THREADS, str(given.cpus_per_task or given.cpus_per_gpu or 1))


def ray(config: DictConfig) -> None:
    """Start Ray on this machine, or connect to the cluster at ``hydra.launcher.ray.init.address``.
    Ray itself gives a job as many threads as cores, one unless ``ray.remote.num_cpus`` is set.

    Raises:
        Refused: no cluster answers, or Ray does not accept the settings of ``ray.init``.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would report to its makers
    # a job that asks for no GPU sees them all, as under the other launchers of one machine
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray

    given: dict[str, Any] = OmegaConf.to_container(config.hydra.launcher.ray.init, resolve=True)  # type: ignore[assignment]
    address = given.get("address") or os.environ.get("RAY_ADDRESS", "local")
    if address == "local":
        given = LOCAL_RAY | given
    else:
        require_answer(address)
        # a worker there has the environment of its machine: let it write to the same store
        store = {name: value for name, value in os.environ.items() if name.startswith("MLFLOW_")}
        runtime = given.get("runtime_env") or {}
        given["runtime_env"] = runtime | {"env_vars": store | (runtime.get("env_vars") or {})}
    on_sigterm = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(**({"logging_level": "warning"} | given))
    except (OSError, ValueError, TypeError, RuntimeError, SystemExit) as error:
        raise Refused(
            f"Ray at {address} cannot be used: {first_line(error, QUOTED)}; check "
            "hydra.launcher.ray.init, or leave it out to run on this machine"
        ) from error
    finally:
        signal.signal(signal.SIGTERM, on_sigterm)  # Ray sets its own, which ends with another code


def require_answer(address: str) -> None:
    """Raise ``Refused`` if nothing accepts connections at ``[ray://]host:port``."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return  # such as auto: Ray says at once what is wrong with it
    try:
        socket.create_connection((host, int(port)), ANSWER_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise Refused(
            f"no Ray cluster answers at {address}: {first_line(error)}; start one with ray start "
            "--head, or leave hydra.launcher.ray.init.address out to run on this machine"
        ) from error


PREPARE: dict[str, Callable[[DictConfig], None]] = {
    "submitit_local": submitit_local,
    "submitit_slurm": submitit_slurm,
    "ray": ray,
}
