#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Install from Debian what is missing for the given purposes: install-deps.sh build|demo|test|bench|lab...
# Quick, and needs neither root nor a network, when nothing is missing.
set -euo pipefail

build=(gcc libc6-dev meson ninja-build pkg-config libjansson-dev libxdp-dev libbpf-dev libcmocka-dev libxen-dev)
guest=(qemu-system-x86 busybox-static iperf3 ethtool iproute2 iputils-ping cpio python3)
test=(clang libclang-rt-dev clang-format python3-pytest python3-pytest-xdist python3-pytest-timeout python3-scapy
	dpdk-dev strace tcpdump spin kmod gnuplot-nox)
bench=(dpdk-dev libdpdk-dev openvswitch-switch-dpdk vde2)
lab=(valgrind gnuplot-nox mariadb-server-core sysbench linux-perf)

wanted=()
for purpose; do
	case $purpose in
	build) wanted+=("${build[@]}") ;;
	demo) wanted+=("${build[@]}" "${guest[@]}") ;;
	test) wanted+=("${build[@]}" "${guest[@]}" "${test[@]}") ;;
	bench) wanted+=("${build[@]}" "${guest[@]}" "${bench[@]}") ;;
	lab) wanted+=("${build[@]}" "${guest[@]}" "${lab[@]}") ;;
	*) echo "usage: $0 build|demo|test|bench|lab..." >&2; exit 2 ;;
	esac
done

# The wanted packages that are not installed. dpkg-query is silent about those it has never heard of.
missing() {
	comm -23 <(printf '%s\n' "${wanted[@]}" | sort -u) \
		<(dpkg-query -W -f '${db:Status-Status} ${Package}\n' "${wanted[@]}" 2>/dev/null |
			sed -n 's/^installed //p' | sort -u)
}

mapfile -t packages < <(missing)
[ ${#packages[@]} -eq 0 ] && exit 0
echo "installing from Debian: ${packages[*]}"
[ "$(id -u)" -eq 0 ] || { echo "this needs root: run make with sudo, or install them yourself" >&2; exit 1; }
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
