"""A process that has imported everything and forks one child a job, so that a SIGKILL hits work and not imports.

Reads JSON lines {"job", "root", "params", "kill_after", "kill_at"} and answers each with {"killed", "seconds", "steps", "said"}.
`kill_after` are seconds; `kill_at` is the number of the step before which the child kills itself, where a step is whatever changes
the file system: a moment that no clock hits, and the same on a fast and on a slow machine.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from datetime import timedelta
from pathlib import Path


def work(job: str, root: str, tree: dict) -> str:
    from ti_pipeline.params import Params
    from ti_pipeline.versioning import publish
    from ti_pipeline.versioning.inbox import bring_in
    from ti_pipeline.versioning.record import record
    from ti_pipeline.workspace import Workspace

    params = Params.model_validate(tree)
    place = Workspace.at(Path(root), params.concepts.folder)
    if job == "versioning":
        return str(record(place, params, print, force=True))
    if job == "inbox":
        return str([arrival.state for arrival in bring_in(place, params, print)])
    if job == "sweeping":
        publish.UNTOUCHED = timedelta(0)  # in this child only: every build that is not kept is old
    return str(publish.publish(place, params, print))


STEPS = {"os.rename", "os.remove", "os.link", "os.symlink", "os.mkdir", "os.rmdir", "os.chmod", "subprocess.Popen"}
_WRITING = os.O_WRONLY | os.O_RDWR


def count_steps(kill_at: int | None) -> list[int]:
    """Count them in this process from now on, and die before the `kill_at`th."""
    steps = [0]

    def hook(event: str, arguments: tuple) -> None:
        if event in STEPS or (event == "open" and isinstance(arguments[2], int) and arguments[2] & _WRITING):
            steps[0] += 1
            if steps[0] == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    return steps


def child(order: dict, answer: int) -> None:
    steps = count_steps(order["kill_at"])
    try:
        said = work(order["job"], order["root"], order["params"])
    except BaseException as error:
        said = f"{type(error).__name__}: {error}"
    os.write(answer, json.dumps([steps[0], said]).encode())


def main() -> None:
    import boto3  # noqa: F401
    import dvc_s3  # noqa: F401
    import s3fs  # noqa: F401

    import ti_pipeline.versioning.inbox
    import ti_pipeline.versioning.publish
    import ti_pipeline.versioning.record
    import ti_pipeline.versioning.registry  # noqa: F401

    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        read, write = os.pipe()
        began = time.monotonic()
        pid = os.fork()
        if not pid:
            os.close(read)
            devnull = os.open(os.devnull, os.O_WRONLY)
            os.dup2(devnull, 1)
            child(order, write)
            os._exit(0)
        os.close(write)
        killed = False
        while os.waitpid(pid, os.WNOHANG) == (0, 0):
            if order["kill_after"] is not None and not killed and time.monotonic() - began >= order["kill_after"]:
                os.kill(pid, signal.SIGKILL)
                killed = True
            time.sleep(0.0005)
        answer = os.read(read, 65536).decode()
        os.close(read)
        steps, said = json.loads(answer) if answer else (0, "")
        print(json.dumps({"killed": not answer, "seconds": time.monotonic() - began, "steps": steps, "said": said}), flush=True)


if __name__ == "__main__":
    main()
