# syntax=docker/dockerfile:1
# Errata and everything that it needs, the demonstration included, in an image that runs as nobody in particular.
#   docker build --tag errata:cpu .
#   docker build --tag errata:cuda --build-arg TORCH=cuda .
ARG PYTHON=3.11
ARG TORCH=cpu

FROM python:${PYTHON}-slim-bookworm AS torch-cpu
# A tenth of the size of the registry's own build, which carries CUDA.
ENV TORCH_INDEX=https://download.pytorch.org/whl/cpu

FROM python:${PYTHON}-slim-bookworm AS torch-cuda
# The driver comes from the host, by the NVIDIA Container Toolkit.
ENV TORCH_INDEX=https://pypi.org/simple

FROM torch-${TORCH} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/errata
ENV PATH=/opt/errata/bin:$PATH
# By itself, since it is large and seldom changes.
RUN --mount=type=cache,target=/root/.cache/pip pip install --index-url "$TORCH_INDEX" 'torch>=2.8,<=2.13.0'
WORKDIR /source
COPY pyproject.toml README.md ./
COPY demo demo
COPY editors editors
COPY migrations migrations
COPY service service
RUN --mount=type=cache,target=/root/.cache/pip pip install '.[redis]'

FROM python:${PYTHON}-slim-bookworm
RUN useradd --create-home --uid 10001 errata \
    && install --directory --owner=errata --group=errata /var/lib/errata /var/lib/errata/artifacts \
        /home/errata/.cache /home/errata/.cache/huggingface
COPY --from=build /opt/errata /opt/errata
# A container is reached from outside it, or not at all: so it starts with an API key only.
ENV PATH=/opt/errata/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    ERRATA_HOST=0.0.0.0 \
    ERRATA_PORT=8000 \
    ERRATA_DATA_DIR=/var/lib/errata/data
USER errata
WORKDIR /var/lib/errata
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=600s --start-interval=2s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen('http://127.0.0.1:' + os.environ['ERRATA_PORT'] + '/readyz', timeout=4)"]
ENTRYPOINT ["errata"]
CMD ["serve"]
