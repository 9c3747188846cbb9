# One image for every service of the cluster: worker, roles, observer.
#
#   docker build -t btard:cpu .                          gradients on the CPU
#   docker build -t btard:cuda --build-arg TORCH=cuda .  gradients on a GPU (several GB)
#   --build-arg TORCHVISION=1                            torchvision too, for a model of one's own that uses it
#
# Stages: what changes rarely comes first, so that a change of the source rebuilds only the last few seconds.

ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS dependencies
ARG TORCH=cpu
ARG TORCH_VERSION=2.13.0
ARG TORCHVISION=0
# The release made for that torch: it wants exactly this one.
ARG TORCHVISION_VERSION=0.28.0
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH
COPY deploy/requirements.txt /tmp/requirements.txt
RUN pip install --quiet --only-binary=:all: -r /tmp/requirements.txt
# The package index has the CUDA build, with NVIDIA's libraries as dependencies; the CPU build has an index of its own.
# torchvision comes from where torch does; the pillow that it needs is on the package index.
RUN case "$TORCHVISION" in \
      0) set -- "torch==$TORCH_VERSION" ;; \
      1) set -- "torch==$TORCH_VERSION" "torchvision==$TORCHVISION_VERSION"; pip install --quiet pillow ;; \
      *) echo "TORCHVISION=$TORCHVISION is unknown; use 0 or 1" >&2; exit 2 ;; \
    esac \
 && case "$TORCH" in \
      cpu) pip install --quiet --no-deps --retries 1 --index-url https://download.pytorch.org/whl/cpu "$@" ;; \
      cuda) pip install --quiet "$@" ;; \
      *) echo "TORCH=$TORCH is unknown; use cpu or cuda" >&2; exit 2 ;; \
    esac \
 && find /opt/venv -depth -type d -name tests -path '*/torch/*' -exec rm -rf {} +

# MNIST, byte for byte the published files: each is checked by its digest, or the build fails.
FROM dependencies AS data
WORKDIR /build
COPY btard/ btard/
COPY node/__init__.py node/errors.py node/
COPY node/training/__init__.py node/training/
COPY node/training/datasets/ node/training/datasets/
RUN python -c "from pathlib import Path; from btard.node.training.datasets.prepare import prepare_mnist; \
prepare_mnist(Path('/opt/data'), print)"

# The image has no compiler: what computes gradients in portable arithmetic, and the passes over vectors, is built here.
FROM ${BASE} AS kernels
RUN command -v cc >/dev/null \
 || { apt-get update -qq && apt-get install -qqy --no-install-recommends gcc libc6-dev >/dev/null; }
WORKDIR /build
COPY node/kernels/ ./
RUN python building.py /opt/kernels

FROM dependencies AS source
WORKDIR /build
COPY pyproject.toml hatch_build.py README.md LICENSE ./
COPY btard/ btard/
COPY node/ node/
COPY --from=kernels /opt/kernels node/kernels/built
COPY launcher/ launcher/
COPY deploy/ deploy/
COPY dashboards/ dashboards/
RUN pip install --quiet --no-deps --no-build-isolation --target /opt/btard .

FROM ${BASE}
# The base has its library without bytecode, and a container writes none: each start would compile it, of a health check
# too, every five seconds (0.19 s of CPU instead of 0.05; a worker's imports 3.6 instead of 2.4).
RUN python -m compileall -q -x '/(test|tests|idlelib|lib2to3|ensurepip|turtledemo)/' "$(python -c 'import os; print(os.path.dirname(os.__file__))')"
# The directories that volumes are mounted on: a fresh volume takes over their owner.
RUN groupadd --gid 10001 btard \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin btard \
 && for place in secrets run ceremony runs truth targets grafana; do install -d -o 10001 -g 10001 -m 0750 "/btard/$place"; done \
 && chmod 0755 /btard/targets /btard/grafana \
 && seq 0 255 | sed 's|.*|/btard/nodes/&|' | xargs install -d -o 10001 -g 10001 -m 0750
COPY --from=dependencies /opt/venv /opt/venv
COPY --from=data /opt/data /opt/data
COPY --from=source /opt/btard /opt/btard
ENV PATH=/opt/venv/bin:/opt/btard/bin:$PATH PYTHONPATH=/opt/btard BTARD_DATA_DIR=/opt/data \
    PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 HEALTH_NOTE=/tmp/health
# As launcher/backends/local.py has it for workers that it starts itself.
ENV OMP_NUM_THREADS=1 MALLOC_ARENA_MAX=1 MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=4000000000 \
    MALLOC_TOP_PAD_=67108864 GLIBC_TUNABLES=glibc.malloc.hugetlb=1
WORKDIR /btard
USER 10001:10001
# Healthy: sockets bound, keys loaded, every peer greeted. It imports neither torch nor anything else that is slow.
HEALTHCHECK --interval=5s --timeout=5s --start-period=300s --retries=3 CMD ["python", "-S", "-m", "btard.node.metrics.healthcheck"]
CMD ["python", "-m", "btard.node", "/btard/run/config.json"]
