# SPDX-License-Identifier: BSD-3-Clause
# The front door. Meson does the building; this installs what is missing from Debian and says what to run.
#
#   make              build vifd and vifctl into build/
#   make demo         two virtual machines and a wire on one vifd        (root)
#                     UPLINK=af_packet or af_xdp: not over a TAP but over a veth pair
#   make test         every test, also under sanitizers, and fuzzing     (root)
#   make xen-test     only those on a real Xen, under QEMU               (root)
#   make bench        vifd and its peers side by side                    (root)
#   make lab          the papers' experiments, paper and here           (root)
#                     ONLY=fig7: not all of them; QUICK=1: few and short samples; RESUME=1: go on
#   make install      PREFIX and DESTDIR as usual
#   make format       clang-format everything; check-format only looks
#
# MESON_FLAGS is handed to `meson setup`, PYTEST_FLAGS to pytest.

PREFIX ?= /usr/local
MESON_FLAGS ?=
PYTEST_FLAGS ?=
ONLY ?=
QUICK ?=
RESUME ?=
UPLINK ?= tap
export PATH := $(PATH):/usr/sbin:/sbin

sanitize = -Db_sanitize=address,undefined -Db_lundef=false
sources = find src tests bench lab examples -name '*.[ch]'

.PHONY: all deps-build deps-demo deps-test deps-bench deps-lab build build-asan build-fuzz \
	demo test xen-test bench lab install format check-format clean
all: build

deps-build deps-demo deps-test deps-bench deps-lab:
	@scripts/install-deps.sh $(@:deps-%=%)

# Meson is told once; ninja notices changes to meson.build by itself.
build: | deps-build
	@test -e build/build.ninja || meson setup build --prefix=$(PREFIX) $(MESON_FLAGS)
	@ninja -C build

build-asan: | deps-test
	@test -e $@/build.ninja || meson setup $@ $(sanitize) -Doptimization=1 $(MESON_FLAGS)
	@ninja -C $@

build-fuzz: | deps-test
	@test -e $@/build.ninja || CC=clang meson setup $@ $(sanitize) -Dfuzz=true $(MESON_FLAGS)
	@ninja -C $@

demo: | deps-demo
	@$(MAKE) --no-print-directory build
	@/usr/bin/python3 demo/demo.py --uplink='$(UPLINK)'

test: | deps-test
	@$(MAKE) --no-print-directory build
	@$(MAKE) --no-print-directory build-asan
	@$(MAKE) --no-print-directory build-fuzz
	@scripts/guest_image.sh
	@scripts/xen_image.sh || [ $$? -eq 77 ]
	@/usr/bin/python3 -m pytest $(PYTEST_FLAGS)

xen-test: | deps-test
	@$(MAKE) --no-print-directory build
	@/usr/bin/python3 -m pytest -n 0 $(PYTEST_FLAGS) tests/xen

bench: | deps-bench
	@$(MAKE) --no-print-directory build
	@bench/run

lab: | deps-lab
	@$(MAKE) --no-print-directory build
	@lab/run $(if $(QUICK),--quick) $(if $(RESUME),--resume) $(ONLY)

install: build
	@meson install -C build --no-rebuild

format: | deps-test
	@$(sources) | xargs clang-format -i

check-format: | deps-test
	@$(sources) | xargs clang-format --dry-run --Werror

clean:
	rm -rf build build-asan build-fuzz demo/out bench/out lab/out
