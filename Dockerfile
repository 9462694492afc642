# Cabildo's images: `docker build --target operator .`, `docker build --target trainer .`
#
# Each final image is three layers: the system, its dependencies (keyed by the lock file) and our
# own wheels, so that a changed line of Python moves a few hundred kilobytes. The code layer is
# built on its own and stacked with one COPY that depends on nothing below it: the local cluster
# builds it alone and joins the two in the registry, and the result is the same image.
#
# BASE                    any Debian 12; Python is installed where it is missing
# PIP_ARGS, REQUIREMENTS  for a torch without CUDA: where pip finds it (`--index-url ...` or
#                         `--find-links /wheels`), and a lock file of its own in requirements/
# A secret `pip.conf` (and `ca.pem`) is read where it is given and stays out of the image. The
# stages `system`, `tools`, `compiler` and `kernels` may be given ready-made as build contexts of
# those names.
ARG BASE=debian:bookworm-slim

# ---- layer 1: the system -------------------------------------------------------------------
FROM ${BASE} AS system
RUN python3 -c 'import ensurepip' 2>/dev/null || { \
      apt-get update && \
      apt-get install --yes --no-install-recommends ca-certificates python3 python3-venv && \
      rm -rf /var/lib/apt/lists/* /var/cache/apt /var/log/apt /var/log/dpkg.log; }

# pip, setuptools, wheel and Cython, pinned; no final image holds them.
FROM system AS tools
COPY requirements/build.txt /opt/tools/requirements.txt
RUN --mount=type=secret,id=pip.conf --mount=type=secret,id=ca.pem \
    export PIP_CONFIG_FILE=/run/secrets/pip.conf && \
    python3 -m venv /opt/tools && \
    /opt/tools/bin/pip install --quiet --no-cache-dir --require-hashes --only-binary :all: \
      --requirement /opt/tools/requirements.txt

# A C compiler and Python's headers, for the kernels alone; no final image holds them.
FROM system AS compiler
RUN include=$(python3 -c 'import sysconfig; print(sysconfig.get_path("include"))'); \
    echo '#include <Python.h>' | gcc -I "$include" -fsyntax-only -x c - 2>/dev/null || { \
      apt-get update && \
      apt-get install --yes --no-install-recommends gcc libc6-dev libpython3-dev && \
      rm -rf /var/lib/apt/lists/* /var/cache/apt /var/log/apt /var/log/dpkg.log; }

# ---- layer 2: dependencies -----------------------------------------------------------------
# No .pyc of pip's: those carry the time of the file they came from. compileall's unchecked ones
# stay valid whatever time a layer gives its files, and are the same at every build. It also
# fails on a package's file for a newer Python, which nothing imports.
FROM system AS operator-dependencies
ARG REQUIREMENTS=requirements/operator.txt
ARG PIP_ARGS=""
COPY ${REQUIREMENTS} /opt/cabildo/requirements.txt
RUN --mount=type=bind,from=tools,source=/opt/tools,target=/opt/tools \
    --mount=type=secret,id=pip.conf --mount=type=secret,id=ca.pem \
    export PIP_CONFIG_FILE=/run/secrets/pip.conf PYTHONHASHSEED=0 && \
    python3 -m venv --without-pip /opt/cabildo/venv && \
    /opt/tools/bin/pip --python /opt/cabildo/venv/bin/python3 install --quiet --no-cache-dir \
      --no-compile --require-hashes --only-binary :all: ${PIP_ARGS} \
      --requirement /opt/cabildo/requirements.txt && \
    echo /opt/cabildo/code > /opt/cabildo/venv/lib/python3.11/site-packages/cabildo.pth && \
    { python3 -m compileall -qq --invalidation-mode unchecked-hash /opt/cabildo/venv/lib || true; }
ENV PATH=/opt/cabildo/venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    HOME=/tmp USER=cabildo PYTHONSAFEPATH=1 PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 65532:65532
WORKDIR /tmp
ENTRYPOINT ["python3", "-m", "cabildo_operator"]

FROM system AS trainer-dependencies
ARG REQUIREMENTS=requirements/trainer.txt
ARG PIP_ARGS=""
COPY ${REQUIREMENTS} /opt/cabildo/requirements.txt
RUN --mount=type=bind,from=tools,source=/opt/tools,target=/opt/tools \
    --mount=type=secret,id=pip.conf --mount=type=secret,id=ca.pem \
    export PIP_CONFIG_FILE=/run/secrets/pip.conf PYTHONHASHSEED=0 && \
    python3 -m venv --without-pip /opt/cabildo/venv && \
    /opt/tools/bin/pip --python /opt/cabildo/venv/bin/python3 install --quiet --no-cache-dir \
      --no-compile --require-hashes --only-binary :all: ${PIP_ARGS} \
      --requirement /opt/cabildo/requirements.txt && \
    echo /opt/cabildo/code > /opt/cabildo/venv/lib/python3.11/site-packages/cabildo.pth && \
    { python3 -m compileall -qq --invalidation-mode unchecked-hash /opt/cabildo/venv/lib || true; }
ENV PATH=/opt/cabildo/venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    HOME=/tmp USER=cabildo PYTHONSAFEPATH=1 PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 65532:65532
WORKDIR /tmp
ENTRYPOINT ["python3", "-m", "cabildo_trainer"]

# ---- layer 3: our wheels -------------------------------------------------------------------
# Built by the backend itself, and unpacked where the interpreter looks for them: pip does no
# more with a wheel of pure Python, and takes two seconds longer.
FROM tools AS operator-wheels
COPY crds /src/crds
COPY operator /src/operator
RUN set -e; export SOURCE_DATE_EPOCH=1735689600 PYTHONHASHSEED=0; mkdir /wheels; \
    for root in crds operator; do cd "/src/$root"; \
      /opt/tools/bin/python -c 'from setuptools.build_meta import *; build_wheel("/wheels")'; done; \
    for wheel in /wheels/*.whl; do python3 -m zipfile -e "$wheel" /code/opt/cabildo/code; done; \
    python3 -m compileall -q --invalidation-mode unchecked-hash -s /code /code

# The compiled kernels, apart from the other wheels: a changed line of Python compiles nothing.
# Nothing here depends on the CPU that compiles, and the files come out the same every time. An
# installation from source goes without an extension that does not compile; an image does not.
FROM compiler AS kernels-wheel
COPY kernels /src/kernels
RUN --mount=type=bind,from=tools,source=/opt/tools,target=/opt/tools \
    set -e; export SOURCE_DATE_EPOCH=1735689600 PYTHONHASHSEED=0; mkdir /wheels; \
    export CFLAGS=-ffile-prefix-map=/src/kernels=.; cd /src/kernels; \
    /opt/tools/bin/python -c 'from setuptools.build_meta import *; build_wheel("/wheels")'; \
    python3 -m zipfile -e /wheels/*.whl /code/opt/cabildo/code; \
    for source in cabildo_kernels/native/*.pyx; do \
      ls /code/opt/cabildo/code/"${source%.pyx}".*.so; done; \
    python3 -m compileall -q --invalidation-mode unchecked-hash -s /code /code

FROM scratch AS kernels
COPY --from=kernels-wheel /code/ /

FROM tools AS trainer-wheels
COPY crds /src/crds
COPY trainer_image /src/trainer_image
RUN set -e; export SOURCE_DATE_EPOCH=1735689600 PYTHONHASHSEED=0; mkdir /wheels; \
    for root in crds trainer_image; do cd "/src/$root"; \
      /opt/tools/bin/python -c 'from setuptools.build_meta import *; build_wheel("/wheels")'; done; \
    for wheel in /wheels/*.whl; do python3 -m zipfile -e "$wheel" /code/opt/cabildo/code; done; \
    python3 -m compileall -q --invalidation-mode unchecked-hash -s /code /code
COPY --from=kernels / /code/

FROM scratch AS operator-code
COPY --from=operator-wheels /code/ /

FROM scratch AS trainer-code
COPY --from=trainer-wheels /code/ /

# ---- the images ----------------------------------------------------------------------------
FROM operator-dependencies AS operator
COPY --from=operator-code / /

FROM trainer-dependencies AS trainer
COPY --from=trainer-code / /
