#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Build what tests/xen boots: Debian's Xen, its kernel as dom0 and as guest, and an initramfs for each.
#
#   xen_image.sh [FOLDER]     FOLDER defaults to build/xen of this checkout
#
# Leaves FOLDER/xen, FOLDER/vmlinux, FOLDER/dom0.cpio and FOLDER/domu.cpio. Packages are downloaded once and unpacked
# into FOLDER/root, nothing is installed. Everything is left uncompressed: under emulation, inflating takes seconds.
# vifd is not in it: what is tested is appended to the initramfs by whoever boots it. Nothing is done when the image
# is newer than what it is made from. The exit status is 77 if the packages cannot be had.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
out=${1:-$here/../build/xen}
xen=4.17
programs=(/bin/busybox /usr/bin/iperf3)
packages=("xen-hypervisor-$xen-amd64" "xen-utils-$xen" xenstore-utils "libxenmisc$xen" libxenstore4 libxencall1 libxenevtchn1
	libxengnttab1 libxendevicemodel1 libxenforeignmemory1 libxentoolcore1 libxentoollog1 libxenhypfs1 libyajl2)
dom0_modules=(xenfs xen-privcmd xen-evtchn xen-gntdev xen-gntalloc xen-netback bridge tun veth)
domu_modules=(xen-netfront)

unavailable() {
	echo "xen image: $1" >&2
	exit 77
}

for program in "${programs[@]}" /sbin/{ip,depmod} /usr/bin/{cpio,python3,strip}; do
	[ -x "$program" ] || unavailable "$program is missing: scripts/install-deps.sh test"
done
mkdir -p "$out"
out=$(readlink -f "$out")
exec 9>"$out/lock"
flock 9 # several tests may ask for the image at once

# Where the dynamic linker finds the libraries of unpacked packages.
libraries=$out/root/usr/lib/x86_64-linux-gnu:$out/root/usr/lib/xen-$xen/lib/x86_64-linux-gnu

up_to_date() {
	local source
	for source in xen vmlinux dom0.cpio domu.cpio; do
		[ -s "$out/$source" ] || return 1
	done
	for source in "$0" "$here"/xen_dom0_init "$here"/xen_domu_init "$here"/xen_domu "${programs[@]}"; do
		[ "$source" -ot "$out/domu.cpio" ] || return 1
	done
}

# The name of the newest kernel package, as the metapackage depends on it.
kernel_package() {
	apt-cache depends --important linux-image-amd64 2>/dev/null | awk '$1 == "Depends:" { print $2; exit }'
}

# Unpack the packages into $out/root, unless they are there.
fetch() {
	[ -e "$out/root" ] && return
	local kernel package
	kernel=$(kernel_package)
	if [ -z "$kernel" ]; then
		apt-get update -qq
		kernel=$(kernel_package)
	fi
	[ -n "$kernel" ] || unavailable "no linux-image-amd64 in the package lists"
	echo "xen image: downloading Xen $xen and $kernel"
	rm -rf "$out/download" "$out/root.new"
	mkdir "$out/download"
	(
		cd "$out/download"
		download=(apt-get -qq -o APT::Sandbox::User=root download "$kernel" "${packages[@]}")
		"${download[@]}" || { apt-get update -qq && "${download[@]}"; } # lists older than the archive
	) >/dev/null || unavailable "Debian's packages cannot be downloaded"
	for package in "$out"/download/*.deb; do
		dpkg-deb -x "$package" "$out/root.new"
	done
	rm -rf "$out/download"
	mv "$out/root.new" "$out/root"
}

# The hypervisor and the kernel as plain ELF files.
unpack_kernels() {
	zcat "$out/root/boot/xen-$xen-amd64.gz" >"$out/xen.new"
	mv "$out/xen.new" "$out/xen"
	/usr/bin/python3 - "$out"/root/boot/vmlinuz-* "$out/vmlinux.new" <<-'END'
		import lzma, struct, sys
		image = open(sys.argv[1], "rb").read()
		setup = (image[0x1f1] or 4) + 1 # sectors before the payload, see the kernel's x86 boot protocol
		offset, length = struct.unpack_from("<II", image, 0x248)
		payload = image[setup * 512 + offset:][:length]
		start = payload.find(b"\xfd7zXZ\0")
		open(sys.argv[2], "wb").write(lzma.LZMADecompressor().decompress(payload[start:]))
	END
	strip -s "$out/vmlinux.new"
	mv "$out/vmlinux.new" "$out/vmlinux"
}

# put ROOT PROGRAM...: programs into /bin of an initramfs, with the libraries that ldd finds.
put() {
	local root=$1 program library
	shift
	for program; do
		install -D -m 755 "$program" "$root/bin/$(basename "$program")"
		for library in $(LD_LIBRARY_PATH=$libraries ldd "$program" 2>/dev/null | grep -o '/[^ )]*'); do
			[ -e "$root/lib/$(basename "$library")" ] || install -D -m 755 "$library" "$root/lib/$(basename "$library")"
		done
	done
}

# start ROOT: an initramfs with the programs that both have.
start() {
	local root=$1 applet
	rm -rf "$root"
	mkdir -p "$root"/{bin,lib,usr/lib,proc,sys,dev,run,tmp,etc,var/lib,var/log/xen/console}
	ln -s lib "$root/lib64"
	ln -s /bin "$root/sbin"
	ln -s ../run "$root/var/run"
	ln -s ../run "$root/var/lock"
	echo 'root:x:0:0:root:/:/bin/sh' >"$root/etc/passwd"
	put "$root" "${programs[@]}"
	for applet in $(busybox --list); do
		[ -e "$root/bin/$applet" ] || ln -s busybox "$root/bin/$applet"
	done
	# pthread_cancel() loads it by name: ldd knows nothing of it, and xl dies without
	install -m 644 /lib/x86_64-linux-gnu/libgcc_s.so.1 "$root/lib/"
}

# modules ROOT NAME...: kernel modules, and what they depend on, where modprobe looks.
modules() {
	local root=$1 source=$out/root/lib/modules release module path
	shift
	release=$(basename "$source"/*)
	mkdir -p "$root/lib/modules/$release"
	[ -e "$source/$release/modules.dep" ] || depmod -b "$out/root" "$release"
	for module; do
		path=$(grep -m1 "/$module.ko:" "$source/$release/modules.dep") ||
			{ echo "xen image: the kernel has no module $module" >&2; exit 1; }
		for path in ${path/:/ }; do
			install -D -m 644 "$source/$release/$path" "$root/lib/modules/$release/$path"
		done
	done
	cp "$source/$release"/modules.{order,builtin,builtin.modinfo} "$root/lib/modules/$release/"
	depmod -b "$root" "$release"
}

archive() {
	(cd "$1" && find . | cpio -o -H newc --quiet) >"$2.new"
	mv "$2.new" "$2"
	rm -rf "$1"
}

assemble() {
	local dom0=$out/dom0 domu=$out/domu tools=$out/root/usr/lib/xen-$xen/bin
	start "$dom0"
	rm "$dom0/bin/ip" # busybox's knows no namespaces
	put "$dom0" /sbin/ip "$tools"/{xl,xenstored,xenconsoled,xen-init-dom0} "$out/root/usr/bin/xenstore"
	for tool in read write ls rm; do
		ln -sf xenstore "$dom0/bin/xenstore-$tool"
	done
	mkdir -p "$dom0/usr/lib/xen-$xen" "$dom0"/{domu,etc/xen/scripts,var/lib/xen,var/lib/xenstored}
	ln -s /bin "$dom0/usr/lib/xen-$xen/bin"
	printf 'autoballoon="0"\nrun_hotplug_scripts=1\nlockfile="/run/xl"\n' >"$dom0/etc/xen/xl.conf"
	modules "$dom0" "${dom0_modules[@]}"
	install -m 755 "$here/xen_dom0_init" "$dom0/init"
	install -m 755 "$here/xen_domu" "$dom0/bin/domu"
	ln "$out/vmlinux" "$dom0/domu/vmlinux"
	archive "$dom0" "$out/dom0.cpio"

	start "$domu"
	modules "$domu" "${domu_modules[@]}"
	install -m 755 "$here/xen_domu_init" "$domu/init"
	archive "$domu" "$out/domu.cpio"
}

export PATH=$PATH:/usr/sbin:/sbin
up_to_date && exit 0
fetch
[ -s "$out/vmlinux" ] && [ -s "$out/xen" ] || unpack_kernels
echo "xen image: assembling the initramfs of dom0 and of its guests"
assemble
