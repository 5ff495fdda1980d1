"""How much of its time training waits for data: shown live, and said in words when it is too much."""

from __future__ import annotations

import logging
import time
from collections import deque
from typing import Any

from classy_vision.hooks import ClassyHook
from vissl.utils.perf_stats import PerfStats

from vissl_jointssl.plugin.hooks.measure_log import MeasureLog, is_logging_step
from vissl_jointssl.plugin.hooks.progress import ProgressHook

DATA_WAIT_FILE = "data_wait.jsonl"  # in the checkpoint folder; a line is {"iteration", "data_wait_share"}
STEPS = 50  # that the share is taken over
FIRST_STEPS = 3  # of an epoch, left out: workers start, and hand over what they had ready
LIMIT = 0.05


class DataWaitHook(ClassyHook):
    """Measures the share of wall time that steps wait for `next(task.data_iterator)`, on this rank.

    It is of the last `STEPS` training steps, without the first ones of each epoch. Where the loss is logged, the share
    goes to the log, to `data_wait.jsonl`, to TensorBoard and, as `data_wait`, beside the loss. If it is above `LIMIT`
    over so many steps, that is said once.

    VISSL's training steps and ours time the wait as `read_sample` (vissl/trainer/train_steps/standard_train_step.py)
    if there is something to keep it in, which by default there is not (vissl/hooks/__init__.py:108).

    Args:
        log: Where the share goes.
        progress: The run's progress file.
    """

    on_start = ClassyHook._noop
    on_forward = ClassyHook._noop
    on_loss_and_meter = ClassyHook._noop
    on_backward = ClassyHook._noop
    on_update = ClassyHook._noop
    on_phase_end = ClassyHook._noop

    def __init__(self, log: MeasureLog, progress: ProgressHook) -> None:
        super().__init__()
        self._log = log
        self._progress = progress
        self._steps: deque[tuple[float, float]] = deque(maxlen=STEPS)  # seconds of waiting, and of all
        self._of_epoch = 0
        self._end = 0.0
        self._said = False

    def on_phase_start(self, task: Any) -> None:
        """Let the steps keep their times, and leave out the first of the phase."""
        if task.perf_stats is None:
            task.perf_stats = PerfStats(use_cuda_events=False)
        self._of_epoch = 0

    def on_step(self, task: Any) -> None:
        """Note the training step that ends here."""
        if not task.train:
            return
        now = time.perf_counter()
        whole, self._end = now - self._end, now
        self._of_epoch += 1
        if self._of_epoch <= FIRST_STEPS:
            return
        self._steps.append((task.perf_stats._host_stats["read_sample"].last_value, whole))
        if is_logging_step(task.iteration, task.config["LOG_FREQUENCY"]):
            self._show(task)

    def on_end(self, task: Any) -> None:
        """Close what was opened."""
        self._log.close()

    def _show(self, task: Any) -> None:
        waited, whole = (sum(seconds) for seconds in zip(*self._steps, strict=True))
        share = waited / whole
        logging.info(f"data wait: {share:.1%} of the last {len(self._steps)} steps")
        self._log.measures(task.iteration, {"data_wait_share": share})
        self._progress.show_beside_loss({"data_wait": share})
        if share > LIMIT and len(self._steps) == STEPS and not self._said:
            self._said = True
            self._warn(share, task)

    def _warn(self, share: float, task: Any) -> None:
        workers = task.config["DATA"]["NUM_DATALOADER_WORKERS"]
        said = (
            f"iteration {task.iteration}: training waits for data {share:.0%} of its time; raise "
            f"config.DATA.NUM_DATALOADER_WORKERS, now {workers}, as far as there are processors for them"
        )
        if task.device.type == "cuda" and task.config["JOINT_SSL"].get("VIEWS_ON") == "workers":
            said += ", or let the GPU make the views with config.JOINT_SSL.VIEWS_ON=device"
        logging.warning(said)
        self._progress.warn(said)
