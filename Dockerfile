# Runs on the CPU, and on a GPU where torch has a CUDA build and the container is given one. TORCH and TORCH_INDEX choose the build:
# an index with CPU builds makes the image several GB smaller, one with CUDA builds picks the CUDA version.
#   docker build -t tinymem .
#   docker build -t tinymem --build-arg TORCH=torch==2.14.1 --build-arg TORCH_INDEX=https://your-index .
#   docker run --rm tinymem                # make quickstart
#   docker run --rm tinymem tinymem --help # any command
#   docker run --rm --gpus all --volume "$PWD/runs:/home/tinymem/app/runs" tinymem
#   docker run --rm tinymem make test
FROM python:3.11-slim

# Debian's own versions will do.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git make \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 tinymem

# Kept in the environment, so that make sees in the container what it saw in the build.
ARG TORCH=torch==2.13.0
ARG TORCH_INDEX=
ENV TORCH=$TORCH TORCH_INDEX=$TORCH_INDEX PIP_NO_CACHE_DIR=1

USER 1000:1000
RUN mkdir /home/tinymem/app
WORKDIR /home/tinymem/app
# The environment that make installs, so that its commands need no other word before them.
ENV PATH=/home/tinymem/app/.venv/bin:$PATH

# torch is by far the largest layer: it is rebuilt only when these files change.
COPY --chown=1000:1000 Makefile constraints.txt ./
RUN make .venv/torch.stamp

COPY --chown=1000:1000 . .
RUN make install

CMD ["make", "quickstart"]
