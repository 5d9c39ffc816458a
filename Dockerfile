# syntax=docker/dockerfile:1
# Two images from one wheel. `api` serves and dispatches and holds no torch; `worker` computes.
#   docker build --target api -t sparring-api .
#   docker build --target worker -t sparring-worker .
# For NVIDIA GPUs: --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu130

FROM python:3.11-slim AS wheel
WORKDIR /src
COPY . .
RUN pip wheel --quiet --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.11-slim AS base
ENV PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore \
    SPARRING_DATA=/data
# A new volume takes over the owner of this folder.
RUN groupadd --gid 10001 sparring \
    && useradd --uid 10001 --gid sparring --no-create-home --home-dir /tmp --shell /usr/sbin/nologin sparring \
    && install --directory --owner=sparring --group=sparring --mode=0700 /data
COPY constraints/cpu.txt /constraints.txt

FROM base AS api
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    pip install --quiet --constraint /constraints.txt "$(echo /wheels/sparring-*.whl)[server,postgres]"
USER 10001:10001
ENV SPARRING_HOST=0.0.0.0
EXPOSE 8787
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s \
    CMD ["python", "-P", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8787/healthz', timeout=4)"]
CMD ["python", "-P", "-m", "sparring.service.api"]

FROM base AS worker
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    pip install --quiet --constraint /constraints.txt --index-url "$TORCH_INDEX" --no-deps torch \
    && pip install --quiet --constraint /constraints.txt "$(echo /wheels/sparring-*.whl)[worker,onnx,postgres]"
USER 10001:10001
HEALTHCHECK --interval=30s --timeout=15s --start-period=60s CMD ["python", "-P", "-m", "sparring.workers.healthcheck", "worker"]
CMD ["python", "-P", "-m", "sparring.workers.worker"]
