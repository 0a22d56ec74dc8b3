# SPDX-License-Identifier: MIT
# A container that serves a directory from the userspace stack.
#
#     docker build -t ustack .
#     docker run --rm --network host --cap-drop all --cap-add NET_RAW -v "$PWD/site:/site:ro" ustack \
#         serve /site --link dev:eth1 --address 192.0.2.80/24
#
# Two stages: the compiler stays in the first. The server runs as an ordinary user; as a container gives such a user no
# capability, CAP_NET_RAW is on the file of the interpreter, a copy that only this user may start. What it takes:
#
#   --cap-add NET_RAW                                     opens an interface that exists (--link dev:IFNAME). The
#                                                         kernel is not kept off it, and need not be where the address
#                                                         is not its own: `serve` says so in one line.
#   --cap-add NET_RAW --cap-add NET_ADMIN --user root     keeps the kernel off it as well
#   --privileged --user root                              makes links and namespaces of its own (--link veth or tap)
#
# --network host (or macvlan) puts it on a real interface: give it an address of that network that no machine has.
# .ci/dockerfile-in-chroot carries these steps out without a container engine.

FROM debian:bookworm-slim AS build
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc libc6-dev python3 python3-dev python3-venv ca-certificates \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
ARG USTACK_OPTIMIZE=-O3
# Through a source distribution, as a release is: what it misses fails here.
RUN python3 -m venv /build \
    && /build/bin/pip install --no-cache-dir build \
    && /build/bin/python -m build --outdir /dist . \
    && python3 -m venv /opt/ustack \
    && /opt/ustack/bin/pip install --no-cache-dir /dist/*.whl

FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 libcap2-bin \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --no-create-home --shell /usr/sbin/nologin ustack
COPY --from=build /opt/ustack /opt/ustack
# The interpreter with the capability is the environment's own copy, for this program alone.
RUN rm /opt/ustack/bin/python3 && cp "$(readlink -f /usr/bin/python3)" /opt/ustack/bin/python3 \
    && chown root:ustack /opt/ustack/bin/python3 && chmod 750 /opt/ustack/bin/python3 \
    && setcap cap_net_raw+ep /opt/ustack/bin/python3 \
    && ln -s /opt/ustack/bin/ustack /usr/local/bin/ustack
USER ustack
ENTRYPOINT ["ustack"]
CMD ["info"]
