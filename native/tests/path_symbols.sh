#!/bin/sh
# Fails when an object compiled for one instruction path defines a weak symbol outside that path's namespace. The linker
# keeps one copy of a weak symbol for the whole program: an inline function of the standard library compiled with
# AVX-512 would then run on machines without it.   path_symbols.sh NM PATH OBJECT...
set -eu
nm=$1
path=$2
shift 2
status=0
for object in "$@"; do
  # W and V: weak definitions; u: unique ones. Names of this path carry its mangled namespace.
  strays=$("$nm" "$object" | awk '$2 ~ /^[WVu]$/ { print $3 }' | grep -v "3cpu${#path}${path}" || true)
  if [ -n "$strays" ]; then
    echo "$object ($path) defines shared weak symbols:"
    echo "$strays" | sed 's/^/  /'
    status=1
  fi
done
exit $status
