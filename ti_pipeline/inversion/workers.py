"""Threads beside the training loop."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import torch


def with_one_thread() -> ThreadPoolExecutor:
    """A worker whose operations take one thread.

    With a team of its own there would be more threads than processors, whereupon OpenMP has all of them sleep, not spin, while
    they wait for each other: a pass of one concept then takes twice as long.
    """

    def take_one() -> None:
        torch.set_num_threads(1)
        torch.get_num_threads()  # this thread keeps what was set last when it first asks

    threads = torch.get_num_threads()
    worker = ThreadPoolExecutor(1, initializer=take_one)
    worker.submit(torch.get_num_threads).result()
    torch.set_num_threads(threads)
    return worker
