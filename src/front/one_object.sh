#!/bin/sh
# SPDX-License-Identifier: BSD-3-Clause
# Make a static library that shows its public functions only: one_object.sh PARTS.a OUTPUT.a FOLDER CC...
set -eu
parts=$1 output=$2 folder=$3
shift 3
mkdir -p "$folder"
"$@" -r -nostdlib -o "$folder/vifront.o" -Wl,--whole-archive "$parts" -Wl,--no-whole-archive
objcopy --localize-hidden "$folder/vifront.o"
rm -f "$output"
ar rcs "$output" "$folder/vifront.o"
