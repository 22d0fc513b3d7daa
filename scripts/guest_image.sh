#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Build the guest that demo, tests and bench boot: Debian's kernel and an initramfs of busybox, iperf3 and ethtool.
#
#   guest_image.sh [FOLDER]     FOLDER defaults to build/guest of this checkout
#
# Leaves FOLDER/vmlinuz and FOLDER/initramfs.gz. The kernel is the one that linux-image-cloud-amd64 stands for
# (the same source as linux-image-amd64 with fewer drivers), downloaded once and never installed. Nothing is
# done when the image is newer than what it is made from.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
out=${1:-$here/../build/guest}
programs=(/bin/busybox /usr/bin/iperf3 /sbin/ethtool)
modules=(virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci failover net_failover virtio_net
	llc stp garp mrp 8021q)

for program in "${programs[@]}" /usr/bin/cpio; do
	[ -x "$program" ] || { echo "guest image: $program is missing: scripts/install-deps.sh demo" >&2; exit 1; }
done
mkdir -p "$out"
exec 9>"$out/lock"
flock 9 # several tests may ask for the image at once

up_to_date() {
	[ -s "$out/vmlinuz" ] && [ -s "$out/initramfs.gz" ] || return 1
	local source
	for source in "$0" "$here/guest_init" "${programs[@]}"; do
		[ "$source" -ot "$out/initramfs.gz" ] || return 1
	done
}

# The name of the newest kernel package, as the metapackage depends on it.
kernel_package() {
	apt-cache depends --important linux-image-cloud-amd64 2>/dev/null | awk '$1 == "Depends:" { print $2; exit }'
}

# Unpack the kernel into $out/kernel, unless it is there.
fetch_kernel() {
	compgen -G "$out/kernel/boot/vmlinuz-*" >/dev/null && return
	local package
	package=$(kernel_package)
	if [ -z "$package" ]; then
		apt-get update -qq
		package=$(kernel_package)
	fi
	[ -n "$package" ] || { echo "guest image: no linux-image-cloud-amd64 in the package lists" >&2; exit 1; }
	echo "guest image: downloading $package"
	rm -rf "$out/download" "$out/kernel.new"
	mkdir "$out/download"
	(
		cd "$out/download"
		download=(apt-get -qq -o APT::Sandbox::User=root download "$package")
		"${download[@]}" || { apt-get update -qq && "${download[@]}"; } # lists older than the archive
	) >/dev/null
	dpkg-deb -x "$out"/download/*.deb "$out/kernel.new"
	rm -rf "$out/download" "$out/kernel"
	mv "$out/kernel.new" "$out/kernel"
}

# The initramfs: programs with the libraries that ldd finds, and the modules in the order to load them.
assemble() {
	local root=$out/root program library module path
	rm -rf "$root"
	mkdir -p "$root"/{bin,modules,proc,sys,dev,tmp,etc}
	install -m 755 "$here/guest_init" "$root/init"
	for program in "${programs[@]}"; do
		install -m 755 "$program" "$root/bin/"
		for library in $(ldd "$program" 2>/dev/null | grep -o '/[^ ]*'); do
			install -D "$library" "$root$library"
		done
	done
	for module in "${modules[@]}"; do
		path=$(find "$out/kernel/lib/modules" -name "$module.ko")
		[ -n "$path" ] || { echo "guest image: the kernel has no module $module" >&2; exit 1; }
		install -m 644 "$path" "$root/modules/"
		echo "$module.ko" >>"$root/modules/order"
	done
	(cd "$root" && find . | cpio -o -H newc --quiet) | gzip -1 >"$out/initramfs.new"
	install -m 644 "$out"/kernel/boot/vmlinuz-* "$out/vmlinuz"
	mv "$out/initramfs.new" "$out/initramfs.gz"
	rm -rf "$root"
}

up_to_date && exit 0
fetch_kernel
echo "guest image: assembling $(basename "$out"/kernel/boot/vmlinuz-*) and its initramfs"
assemble
