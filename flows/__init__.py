"""Prefect flows. Importing `tasks` first sets what Prefect reads from the environment when it is imported."""

import tasks as tasks
