#!/usr/bin/env bash
# Builds an image from a binary that is built already, without a container engine: the binary, the
# libraries that it links, the certificates of this machine, and nothing else.
#
#   deploy/image.sh [--storage DIR] [--archive FILE] BINARY TAG
#
# --storage DIR   where images are kept (default: buildah's own place)
# --archive FILE  writes the image as an OCI archive too
#
# Needs buildah (Debian: apt-get install buildah), and root or a user namespace.
set -euo pipefail

usage() {
  sed -n '5,10s/^# \{0,1\}//p' "$0" >&2
  exit 2
}

storage=() archive=""
while [ $# -gt 2 ]; do
  case $1 in
    --storage) storage=(--root "$2/root" --runroot "$2/run"); shift 2 ;;
    --archive) archive=$2; shift 2 ;;
    *) usage ;;
  esac
done
[ $# -eq 2 ] || usage
binary=$1 tag=$2
[ -x "$binary" ] || { echo "$binary: there is no such binary; cargo build --release makes one" >&2; exit 1; }
command -v buildah >/dev/null || { echo "buildah is not installed; deploy/Dockerfile needs an engine instead" >&2; exit 1; }

context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
rootfs=$context/rootfs
mkdir -p "$rootfs"/{etc/ssl/certs,usr/local/bin,tmp} "$context"/{log,sockets}
cp "$binary" "$rootfs/usr/local/bin/loopwright"
# Each library at the path that the binary finds it by: "name => /path (address)" or "/loader (address)".
ldd "$binary" | sed -n 's/.*=> \(\/[^ ]*\) (.*/\1/p; s/^[[:space:]]*\(\/[^ ]*\) (.*/\1/p' | while read -r library; do
  mkdir -p "$rootfs$(dirname "$library")"
  cp -L "$library" "$rootfs$library"
done
certificates=/etc/ssl/certs/ca-certificates.crt
if [ -f "$certificates" ]; then
  cp -L "$certificates" "$rootfs$certificates"
else
  echo "$certificates is not here: the image will reach no model provider over https" >&2
fi
echo 'loopwright:x:10001:10001::/var/lib/loopwright:/sbin/nologin' >"$rootfs/etc/passwd"
echo 'loopwright:x:10001:' >"$rootfs/etc/group"
chmod 1777 "$rootfs/tmp"

cat >"$context/Containerfile" <<'IMAGE'
FROM scratch
COPY rootfs/ /
COPY --chown=10001:10001 log/ /var/lib/loopwright/
COPY --chown=10001:10001 sockets/ /run/loopwright/
ENV PATH=/usr/local/bin \
    LOOPWRIGHT_SERVER__LISTEN=0.0.0.0:7070 \
    LOOPWRIGHT_SESSION_LOG__DIR=/var/lib/loopwright \
    LOOPWRIGHT_TOOLS__UNIX_DIR=/run/loopwright
USER 10001:10001
WORKDIR /var/lib/loopwright
VOLUME ["/var/lib/loopwright"]
EXPOSE 7070
STOPSIGNAL SIGTERM
ENTRYPOINT ["loopwright"]
CMD ["serve"]
IMAGE

buildah "${storage[@]}" --storage-driver vfs bud --isolation chroot --tag "$tag" "$context" >&2
if [ -n "$archive" ]; then
  buildah "${storage[@]}" --storage-driver vfs push "$tag" "oci-archive:$archive:$tag" >&2
fi
echo "$tag"
