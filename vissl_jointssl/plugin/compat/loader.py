"""A data loader whose workers do not outlive their rank, and that says what happened to one that died or hangs.

It is also where views that workers only planned are made.
"""

from __future__ import annotations

import os
import signal
import threading
import time
import traceback
from collections.abc import Callable
from functools import partial
from multiprocessing import parent_process
from multiprocessing.connection import wait
from multiprocessing.queues import Queue
from typing import Any

import torch
from torch.utils.data import DataLoader
from torch.utils.data._utils import signal_handling
from torch.utils.data.dataloader import _BaseDataLoaderIter, _MultiProcessingDataLoaderIter
from vissl import data

from vissl_jointssl.plugin.loader_faults import (
    NOT_HANDED_OVER,
    LoaderError,
    batch_words,
    death_words,
    hang_words,
    raised_words,
)
from vissl_jointssl.plugin.options import RunOptions
from vissl_jointssl.plugin.planned_views import MadeBatches, PlanningCollator, views_device
from vissl_jointssl.plugin.stop_signals import signals_held
from vissl_jointssl.plugin.volume_views import VolumeViews

SECONDS_BETWEEN_LOOKS = 1.0  # at whether the workers are alive


def replace_data_loader() -> None:
    """``vissl/data/__init__.py:190`` waits for ever for a worker that hangs, and says of a dead one that it is dead.

    Both are PyTorch's defaults, and by design.
    """
    data.DataLoader = WatchedLoader


class WatchedLoader(DataLoader):
    """PyTorch's, for VISSL's data sets. Nothing is different without a `JOINT_SSL` section.

    Workers are watched, and views of volumes may be left to the device that trains, see `planned_views`.

    Raises:
        LoaderError: By its iterator, if a worker dies, gives nothing for `JOINT_SSL.LOADER_TIMEOUT` seconds, or has no
            room for its batch. The other workers are ended.
    """

    def __init__(self, dataset: Any, **options: Any) -> None:
        self.seconds: float | None = None
        if "JOINT_SSL" in dataset.cfg and options.get("num_workers"):
            self.seconds = dataset.cfg.JOINT_SSL.get("LOADER_TIMEOUT", RunOptions.loader_timeout)
            options["worker_init_fn"] = partial(begin_worker, options.get("worker_init_fn"))
        self.views_device = _leave_views_to_the_device(dataset)
        if self.views_device is not None:
            options["collate_fn"] = PlanningCollator(options["collate_fn"])
        super().__init__(dataset, **options)

    def _get_iterator(self) -> _BaseDataLoaderIter:
        if self.seconds is None:
            return super()._get_iterator()
        with signals_held():
            return _WatchedIterator(self)

    def __iter__(self) -> Any:
        batches = super().__iter__()
        return batches if self.views_device is None else MadeBatches(batches, self.views_device)


def _leave_views_to_the_device(dataset: Any) -> torch.device | None:
    """Let the transform only plan views, if it draws views of volumes last and the config does not say otherwise."""
    transforms = getattr(getattr(dataset, "transform", None), "transforms", [])
    if "JOINT_SSL" not in dataset.cfg or not transforms or not isinstance(transforms[-1].transform, VolumeViews):
        return None
    device = views_device(dataset.cfg)
    transforms[-1].transform.plan_only = device is not None
    return device


class _WatchedIterator(_MultiProcessingDataLoaderIter):
    """PyTorch's, which knows what each worker is at work on and looks every second whether it lives."""

    def __init__(self, loader: WatchedLoader) -> None:
        self._given: dict[int, Any] = {}  # indices of each batch, by its number
        self._source = loader.dataset
        self._seconds = loader.seconds
        super().__init__(loader)
        # PyTorch's handler of SIGCHLD would raise wherever the main thread is; `_get_data` looks at the workers itself.
        signal_handling._remove_worker_pids(id(self))
        self._worker_pids_set = False
        workers: list[Any] = self._workers
        for worker in workers:
            worker._popen.terminate = worker._popen.kill  # they do not hear SIGTERM

    def _next_index(self) -> Any:
        indices = super()._next_index()
        self._given[self._send_idx] = indices
        return indices

    def _next_data(self) -> Any:
        batch = self._rcvd_idx
        try:
            value = super()._next_data()
        except (MemoryError, OSError, RuntimeError) as error:
            if isinstance(error, LoaderError):
                raise
            words = raised_words(error, self._num_workers)
            if words is None:
                raise
            raise self._fault(f"a loader worker{batch_words(self._source, self._given.get(batch))}, {words}") from error
        self._given.pop(batch, None)
        return value

    def _get_data(self) -> Any:
        start = time.monotonic()
        while not self._seconds or time.monotonic() - start < self._seconds:
            try:
                got, value = self._try_get_data(SECONDS_BETWEEN_LOOKS)
            except (EOFError, OSError, RuntimeError) as error:  # its socket or queue ends with a worker
                wait([worker.sentinel for worker in self._workers], SECONDS_BETWEEN_LOOKS)  # it may be about to end
                dead = [number for number, worker in enumerate(self._workers) if not worker.is_alive()]
                if not dead:
                    raise
                raise self._fault(self._died(dead[0])) from error
            if got:
                return value
            if self._pin_memory and not self._pin_memory_thread.is_alive():
                raise self._fault("the thread that pins memory ended; set config.DATA.PIN_MEMORY=False")
        number = self._task_info[self._rcvd_idx][0]
        words = batch_words(self._source, self._given.get(self._rcvd_idx))
        raise self._fault(f"{self._named(number, words)} {hang_words(self._seconds, self._num_workers)}")

    def _died(self, number: int) -> str:
        # A batch that is ready may die with the worker that is already at the next one: any of its batches is suspect.
        batches = [batch for batch, task in sorted(self._task_info.items()) if task == (number,)]
        words = batch_words(self._source, [index for batch in batches for index in self._given.get(batch, [])])
        exit_code = self._workers[number].exitcode
        return f"{self._named(number, words)} {death_words(exit_code, self._num_workers)}"

    def _named(self, number: int, at_work: str) -> str:
        return f"loader worker {number} (process {self._workers[number].pid}){at_work}{',' if at_work else ''}"

    def _fault(self, words: str) -> LoaderError:
        """End the workers: one that hangs would keep this process from ending."""
        for worker in self._workers:
            worker.kill()
        return LoaderError(words)


def begin_worker(also: Callable[[int], None] | None, number: int) -> None:
    """What a worker does first.

    Args:
        also: VISSL's own.
        number: The worker's.
    """
    # PyTorch's watchdog looks at the parent, which is the fork server and lives as long as its workers do.
    threading.Thread(target=_end_with_the_rank, name="end_with_the_rank", daemon=True).start()
    # A batch is sent by a thread, whose errors Python prints and forgets: the rank would wait for that batch.
    queue: Any = Queue
    queue._on_queue_feeder_error = staticmethod(_end_at_feeder_error)
    if also is not None:
        also(number)


def _end_with_the_rank() -> None:
    rank = parent_process()
    if rank is not None:
        wait([rank.sentinel])
        os.kill(os.getpid(), signal.SIGKILL)


def _end_at_feeder_error(error: Exception, batch: object) -> None:
    traceback.print_exception(error)
    os._exit(NOT_HANDED_OVER)
