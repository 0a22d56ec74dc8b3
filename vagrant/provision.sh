#!/bin/bash
# SPDX-License-Identifier: MIT
# Prepare a Debian 12 or Ubuntu 24.04 machine, virtual or bare, or a container: after it `make run`, `make test` and
# `make bench-quick` work. Run it as root, from anywhere, as often as you like; Vagrant runs it by itself.
#
# A kernel module that is missing is reported, not fatal: `ustack info` says in the end what the machine can do.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if [ "$(id -u)" != 0 ]; then
    echo "provision.sh needs root: sudo vagrant/provision.sh" >&2
    exit 2
fi

echo "provision: packages"
vagrant/install-packages build run test bench

echo "provision: kernel"
modules=(veth tun cls_bpf sch_ingress nf_tables)
for module in "${modules[@]}"; do
    # Built in, loaded by itself when it is needed, or absent: only the use of it can tell.
    modprobe -q "$module" 2>/dev/null || true
done
if [ ! -e /dev/net/tun ]; then
    mkdir -p /dev/net
    mknod /dev/net/tun c 10 200 2>/dev/null || echo "provision: no /dev/net/tun here: --link tap will not work" >&2
fi
if [ -d /etc/modules-load.d ]; then
    printf '%s\n' "# for ustack" "${modules[@]}" > /etc/modules-load.d/ustack.conf
fi

echo "provision: build"
make build

echo "provision: what this machine can do"
.venv/bin/ustack info
