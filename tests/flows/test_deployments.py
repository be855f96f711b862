"""`prefect.yaml` on a real server: a worker sees a scheduled run through."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.schedules import CronSchedule

from tests.flows.processes import ROOT, started, wait_for
from ti_pipeline.files import read_table
from ti_pipeline.versioning.begin import begin


def prefect(environment: dict[str, str], folder: Path, *arguments: str) -> None:
    command = [sys.executable, "-m", "prefect", "--no-prompt", *arguments]
    ran = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def ended(deployment: UUID) -> FlowRun | None:
    """The deployment's first run that was scheduled and has ended."""
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[deployment])))
    return next((run for run in runs if run.auto_scheduled and run.state and run.state.is_final()), None)


def test_a_worker_sees_a_scheduled_run_through(server, checkout, tmp_path) -> None:
    """Deployed from a workspace that is no clone, with the stage `validate` alone: what the other five do is tested without a worker."""
    toys = begin(tmp_path / "toys").folder
    prefect(server, toys, "work-pool", "create", "--type", "process", "ti-pipeline")
    prefect(server, toys, "deploy", "--all")
    with get_client(sync_client=True) as client:
        on_demand = client.read_deployment_by_name("train-concepts/on-demand")
        nightly = client.read_deployment_by_name("train-concepts/nightly")
        assert on_demand.schedules == []
        (schedule,) = nightly.schedules
        assert schedule.active and schedule.schedule.cron == "0 2 * * *"
        assert nightly.parameters == on_demand.parameters and nightly.parameters["workspace"] is None
        said = nightly.model_dump_json() + on_demand.model_dump_json()
        assert str(ROOT) not in said and str(tmp_path) not in said and not nightly.pull_steps
        assert [deployment.global_concurrency_limit.limit for deployment in (nightly, on_demand)] == [1, 1]

    target = {"params": str(checkout / "params.yaml"), "stages": ["validate"]}
    target["overrides"] = [f"concepts.folder={checkout / 'examples' / 'concepts'}"]
    log = tmp_path / "worker.log"
    worker = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "ti-pipeline", "--limit", "1"]
    with started(worker, log, server | {"PREFECT_WORKER_QUERY_SECONDS": "1", "TI_PIPELINE_WORKSPACE": str(tmp_path)}) as process:
        every = CronSchedule(cron="* * * * * */20", timezone="UTC")  # the sixth field is the second
        with get_client(sync_client=True) as client:
            client.create_deployment_schedules(nightly.id, [(every, True)], parameters=target)
        run = wait_for(lambda: ended(nightly.id), process, log)
    assert run.state.is_completed(), f"{run.state.message}\n{log.read_text()}"
    assert run.state.name == "Incomplete" and run.state.message == "2 done, 1 quarantined"
    assert read_table(tmp_path / "artifacts" / "manifests" / "fox.parquet")
