#!/bin/sh
# Runs runc without CAP_SYS_RESOURCE in the container's capabilities.
#
# Where the host's bounding set lacks that capability, `--privileged` asks for what nobody can grant and fails
# with "unable to apply caps". The bundle's config.json (create, run) and the process file (exec) list what to ask for.
set -eu
real=/usr/sbin/runc
file=
previous=
for argument in "$@"; do
	case "$previous" in
	--bundle | -b) file="$argument/config.json" ;;
	--process | -p) file="$argument" ;;
	esac
	case "$argument" in
	--bundle=*) file="${argument#*=}/config.json" ;;
	--process=*) file="${argument#*=}" ;;
	esac
	previous="$argument"
done
if [ -f "$file" ]; then
	sed -zi -e 's/"CAP_SYS_RESOURCE"[[:space:]]*,//g' -e 's/,[[:space:]]*"CAP_SYS_RESOURCE"//g' -e 's/"CAP_SYS_RESOURCE"//g' "$file"
fi
exec "$real" "$@"
