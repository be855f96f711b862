# docker build --tag ti-pipeline .                                  CPU
# docker build --tag ti-pipeline:cuda --build-arg DEVICE=cuda .     CUDA: docker run --gpus all …
# docker run --rm --init --volume ti-pipeline:/workspace ti-pipeline ti-pipeline run     a volume for the whole workspace: what is
#                                     learnt, what people picked (choices/), and params.yaml, which Docker puts there the first time
# docker run --rm --init --volume "$PWD:/workspace" ti-pipeline ti-pipeline run           a clone, with its record in DVC and Git
# docker run --init --volume ti-pipeline:/workspace --env PREFECT_API_URL=… ti-pipeline prefect worker start --pool ti-pipeline --limit 1
#
# `--read-only --tmpfs /tmp` works with both: what is written goes to /workspace and /tmp. More in docs/deployment.md.
#
# Packages come from wherever pip is told to look: `--secret id=pip,src=pip.conf` for a mirror of your own.
ARG DEVICE=cpu

FROM python:3.11-slim-bookworm AS cpu
ENV PYTHONUNBUFFERED=1

# The ordinary torch wheel brings CUDA's libraries and runs without a GPU too; what differs is what the container asks of the host.
FROM cpu AS cuda
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility

# hadolint ignore=DL3006
FROM ${DEVICE} AS pipeline
ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    DO_NOT_TRACK=1 \
    PREFECT_SERVER_ANALYTICS_ENABLED=false \
    PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS=300 \
    TI_PIPELINE_WORKSPACE=/workspace
# What programs keep for themselves goes to the workspace too: nothing that matters is lost with a container, or asks for its own root.
ENV PREFECT_HOME=/workspace/artifacts/prefect \
    XDG_CACHE_HOME=/workspace/artifacts/cache \
    HF_HOME=/workspace/artifacts/cache/huggingface \
    MPLCONFIGDIR=/workspace/artifacts/cache/matplotlib

# Git names the versions. No version of it is pinned: Debian's archive keeps only the newest of a release. A clone that is mounted
# belongs to whoever made it, and Git would not open it.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git \
    && rm -rf /var/lib/apt/lists/* \
    && git config --system --add safe.directory /workspace

RUN useradd --create-home --uid 1000 pipeline \
    && install --directory --owner=pipeline --group=pipeline /workspace /workspace/artifacts /workspace/choices /workspace/data

# The dependencies first: they change less often than the code.
WORKDIR /opt/ti-pipeline
COPY pyproject.toml constraints.txt README.md ./
COPY ti_pipeline/__init__.py ti_pipeline/__init__.py
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    pip install --constraint constraints.txt .
COPY ti_pipeline ti_pipeline
COPY tasks tasks
COPY flows flows
# What `ti-pipeline init` and `demo` begin with goes into the package too.
COPY setup.py params.yaml dvc.yaml prefect.yaml automations.yaml .dvcignore .gitignore ./
COPY choices choices
COPY examples examples
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    pip install --constraint constraints.txt --no-deps --force-reinstall .

WORKDIR /workspace
COPY --chown=pipeline params.yaml prefect.yaml automations.yaml ./
COPY --chown=pipeline examples examples
USER 1000:1000
CMD ["ti-pipeline", "--help"]
