# Two images: `train`, the default, and `serve`, the demo of a trained model.
#
#   docker build -t roberta-gru .
#   docker run -v roberta-gru-cache:/cache -v roberta-gru-runs:/app/runs roberta-gru --config recipes/quickstart.yaml
#
#   docker build --target serve -t roberta-gru:serve .
#   docker run -p 127.0.0.1:7860:7860 -v "$PWD/runs/mine/model:/model:ro" --user "$(id -u)" roberta-gru:serve
#   docker run -p 127.0.0.1:7860:7860 -e MODEL_ID=user/name roberta-gru:serve
#
# `-e OMP_NUM_THREADS=8` for training on a CPU: Accelerate's default is one thread. PyTorch comes with CUDA, as the
# package index has it; for a small CPU image, build with `--build-arg PIP_EXTRA_INDEX_URL=…`, the CPU index that
# PyTorch's install page names. For GPUs:
#
#   docker build --build-arg BASE_IMAGE=nvidia/cuda:13.0.1-runtime-ubuntu24.04 -t roberta-gru:cuda .
#   docker run --gpus all …

ARG BASE_IMAGE=python:3.11-slim-bookworm
FROM ${BASE_IMAGE} AS base

# CUDA images bring no Python. Its version is the distribution's. The cache is anyone's, so that `--user` may name any.
# hadolint ignore=DL3008
RUN if ! command -v python3; then \
        apt-get update \
        && apt-get install -y --no-install-recommends ca-certificates python3 python3-venv \
        && rm -rf /var/lib/apt/lists/*; \
    fi \
    && python3 -m venv /opt/venv \
    && useradd --uid 10001 --create-home trainer \
    && install --directory --mode=1777 /cache \
    && install --directory --owner=10001 --group=10001 /app/runs

ENV PATH=/opt/venv/bin:$PATH \
    PIP_NO_CACHE_DIR=1 \
    PYTHONUNBUFFERED=1 \
    HF_HOME=/cache/huggingface

WORKDIR /app

# The dependencies stand before the code, so that a change of code does not install them again.
ARG PIP_EXTRA_INDEX_URL=
COPY constraints.txt ./


FROM base AS serve

# Of this package the page needs three files: a model brings its own code.
COPY model_card/space/requirements.txt ./
COPY requirements/serve.txt hashed.txt
# Every file by its SHA-256; another index has other files.
RUN if [ -z "$PIP_EXTRA_INDEX_URL" ] && [ "$(uname -m)" = x86_64 ]; \
    then pip install --require-hashes --requirement hashed.txt; \
    else pip install --constraint constraints.txt --requirement requirements.txt; fi
COPY modeling_roberta_gru/inference/reading.py modeling_roberta_gru/inference/reading.html ./
COPY modeling_roberta_gru/data/dialect.py model_card/space/app.py ./

ENV MODEL_ID=/model \
    GRADIO_SERVER_NAME=0.0.0.0 \
    GRADIO_SERVER_PORT=7860

USER 10001:10001
VOLUME /cache
EXPOSE 7860
# A model from the Hub has five minutes to come. http.client goes through no proxy.
HEALTHCHECK --interval=30s --timeout=10s --start-period=300s --retries=3 \
    CMD ["python", "-c", "from http.client import HTTPConnection; page = HTTPConnection('127.0.0.1', 7860, timeout=5); page.request('GET', '/config'); exit(page.getresponse().status != 200)"]
# As the first process of a container, Python ignores SIGTERM.
STOPSIGNAL SIGINT
ENTRYPOINT ["python", "app.py"]


FROM base AS train

COPY pyproject.toml ./
COPY requirements/train.txt hashed.txt
# As above.
RUN if [ -z "$PIP_EXTRA_INDEX_URL" ] && [ "$(uname -m)" = x86_64 ]; \
    then pip install --require-hashes --requirement hashed.txt; \
    else python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies'], sep='\n')" \
            > /tmp/requirements.txt \
        && pip install --constraint constraints.txt --requirement /tmp/requirements.txt \
        && rm /tmp/requirements.txt; fi

# What `.dockerignore` lets in.
COPY . .
# What builds the package is known by its digests, too.
RUN pip install --require-hashes --requirement requirements/build.txt \
    && pip install --no-deps --no-build-isolation --editable .

USER 10001:10001
VOLUME /cache
ENTRYPOINT ["accelerate", "launch", "train.py"]
