"""Runs on SLURM, through submitit, that keep our registrations and hooks.

VISSL's own job (``vissl/utils/distributed_launcher.py:204``) always uses VISSL's default hooks and never imports the
program that submitted it, so nothing of a plugin reaches the nodes.
"""

from __future__ import annotations

import logging
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vissl.config import AttrDict

from vissl_jointssl.plugin.stop_signals import Stopped

if TYPE_CHECKING:
    import submitit


@dataclass
class ResumableJob:
    """What one node of the allocation runs; unpickling it there imports this package, and so the whole plugin.

    Args:
        engine_name: ``train``, ``extract_features``, ``extract_cluster`` or one of the plugin's.
        config: The run's config.
    """

    engine_name: str
    config: AttrDict

    def __call__(self) -> None:
        """Meet the other nodes at the first one's address and run the engine.

        Raises:
            Stopped: If the run was asked to stop, by any signal but the one for which submitit queues the job again.
        """
        import submitit

        # Late, so that a job can be unpickled without starting to launch.
        from vissl_jointssl.plugin.launch import launch_on_this_node

        environment = submitit.JobEnvironment()
        self.config.DISTRIBUTED.INIT_METHOD = "tcp"
        self.config.DISTRIBUTED.RUN_ID = f"{environment.hostnames[0]}:{self.config.SLURM.PORT_ID}"
        try:
            launch_on_this_node(self.config, node_id=environment.global_rank, engine_name=self.engine_name)
        except Stopped as stopped:
            # The run's checkpoint is there. If it was submitit's signal of preemption, submitit queues the job again;
            # while the run was going on, submitit's handler had to wait.
            if stopped.number != signal.SIGINT and callable(signal.getsignal(stopped.number)):
                signal.raise_signal(stopped.number)
            raise

    def checkpoint(self) -> submitit.helpers.DelayedSubmission:
        """Called by submitit when the job is preempted or out of time: queue the same job again, which resumes."""
        import submitit

        return submitit.helpers.DelayedSubmission(ResumableJob(engine_name=self.engine_name, config=self.config))


def submit(config: AttrDict, engine_name: str, cluster: str | None = None) -> submitit.Job:
    """Queue a run.

    Args:
        config: The run's config; ``SLURM`` and ``DISTRIBUTED`` say what to ask for.
        engine_name: The engine to run.
        cluster: ``local`` runs it on this machine, ``None`` lets submitit find SLURM.

    Returns:
        submitit's handle.

    Raises:
        ValueError: If no partition is named.
    """
    import submitit

    if not config.SLURM.PARTITION and cluster != "local":
        raise ValueError("config.SLURM.PARTITION is empty; name the SLURM partition to run on")
    folder = Path(config.SLURM.LOG_FOLDER)
    folder.mkdir(parents=True, exist_ok=True)
    ranks = config.DISTRIBUTED.NUM_PROC_PER_NODE
    executor = submitit.AutoExecutor(folder=folder, cluster=cluster)
    executor.update_parameters(
        name=config.SLURM.NAME,
        slurm_comment=config.SLURM.COMMENT,
        slurm_partition=config.SLURM.PARTITION,
        slurm_constraint=config.SLURM.CONSTRAINT,
        slurm_additional_parameters=dict(config.SLURM.ADDITIONAL_PARAMETERS),
        timeout_min=config.SLURM.TIME_HOURS * 60 + config.SLURM.TIME_MINUTES,
        nodes=config.DISTRIBUTED.NUM_NODES,
        tasks_per_node=1,  # one task per node starts the node's ranks
        cpus_per_task=config.SLURM.NUM_CPU_PER_PROC * ranks,
        gpus_per_node=ranks if config.MACHINE.DEVICE == "gpu" else 0,
        mem_gb=config.SLURM.MEM_GB,
    )
    job = executor.submit(ResumableJob(engine_name=engine_name, config=config))
    logging.info(f"Submitted job {job.job_id}; its logs are in {folder}")
    return job
