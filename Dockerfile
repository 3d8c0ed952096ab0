# The training image.
#
#   docker build -t roberta-gru .
#   docker run -v roberta-gru-cache:/cache -v roberta-gru-runs:/app/runs roberta-gru --config recipes/quickstart.yaml
#
# `-e OMP_NUM_THREADS=8` for a CPU: Accelerate's default is one thread. `make docker-replay` tries it without Docker.
# PyTorch comes with CUDA, as the package index has it; for a small CPU image, build with
# `--build-arg PIP_EXTRA_INDEX_URL=…`, the CPU index that PyTorch's install page names. For GPUs:
#
#   docker build --build-arg BASE_IMAGE=nvidia/cuda:13.0.1-runtime-ubuntu24.04 -t roberta-gru:cuda .
#   docker run --gpus all …

ARG BASE_IMAGE=python:3.11-slim-bookworm
FROM ${BASE_IMAGE}

# CUDA images bring no Python. Its version is the distribution's.
# hadolint ignore=DL3008
RUN if ! command -v python3; then \
        apt-get update \
        && apt-get install -y --no-install-recommends ca-certificates python3 python3-venv \
        && rm -rf /var/lib/apt/lists/*; \
    fi \
    && python3 -m venv /opt/venv \
    && useradd --uid 10001 --create-home trainer \
    && install --directory --owner=10001 --group=10001 /cache /app/runs

ENV PATH=/opt/venv/bin:$PATH \
    PIP_NO_CACHE_DIR=1 \
    PYTHONUNBUFFERED=1 \
    HF_HOME=/cache/huggingface

WORKDIR /app

# The dependencies stand before the code, so that a change of code does not install them again.
ARG PIP_EXTRA_INDEX_URL=
COPY pyproject.toml constraints.txt ./
RUN python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies'], sep='\n')" \
        > /tmp/requirements.txt \
    && pip install --constraint constraints.txt --requirement /tmp/requirements.txt \
    && rm /tmp/requirements.txt

# What `.dockerignore` lets in.
COPY . .
RUN pip install --no-deps --editable .

USER 10001:10001
VOLUME /cache
ENTRYPOINT ["accelerate", "launch", "train.py"]
