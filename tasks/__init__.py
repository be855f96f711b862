"""Prefect tasks: one a stage, with what Prefect has to know before it is imported."""

from __future__ import annotations

import os
import warnings

from ti_pipeline.loopback import spare_loopback

PLATFORM = {
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "300",  # the default of 20 s is too short for two busy cores, and so was 60
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_LOGGING_EXTRA_LOGGERS": "ti_pipeline",  # what the library says has its time and stands in the run's log
    "DO_NOT_TRACK": "1",
}

for _name, _value in PLATFORM.items():
    os.environ.setdefault(_name, _value)
spare_loopback()
warnings.filterwarnings("ignore", "Failed to create the Prefect home", UserWarning)  # a run's own server has one in the workspace
