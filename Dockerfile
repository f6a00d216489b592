# syntax=docker/dockerfile:1
# Two images: `docker build --target gateway .` (no PyTorch) and `docker build --target node .` (CUDA).
# Both run as an ordinary user and keep their data in the volume /data.

FROM python:3.12-slim AS base
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN useradd --create-home --uid 10001 limner && install -d -o limner -g limner /data
WORKDIR /app
COPY requirements.lock ./
# The lock names pip too; its line is taken out of it.
RUN pip install "$(grep '^pip==' requirements.lock)"
COPY pyproject.toml README.md LICENSE ./
COPY network network
COPY node node
COPY gateway gateway

FROM base AS gateway
RUN pip install --constraint requirements.lock --build-constraint requirements.lock ".[gateway,s3]"
ENV LIMNER_GATEWAY__DATA_DIR=/data
USER 10001
VOLUME /data
EXPOSE 8937
ENTRYPOINT ["limner-gateway"]
CMD ["run"]

# torch's wheels bring the CUDA libraries; the host brings the driver (NVIDIA Container Toolkit).
FROM base AS node
RUN pip install --constraint requirements.lock --build-constraint requirements.lock ".[node]"
ENV LIMNER_NODE__DATA_DIR=/data NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 10001
VOLUME /data
EXPOSE 8936
ENTRYPOINT ["limner-node"]
CMD ["run"]
