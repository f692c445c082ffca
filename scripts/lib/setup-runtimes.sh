# shellcheck shell=bash
# Sourced by scripts/setup: the root file systems of the runtimes that run inside the sandboxes.
# shellcheck disable=SC2034,SC2153  # DETAIL is read by scripts/setup, which sets the capitals

readonly CHECKSUMS=$CHECKOUT/images/runtimes/checksums.txt

deno_state() { runtime_state deno; }
deno_install() { runtime_install deno; }
bun_state() { runtime_state bun; }
bun_install() { runtime_install bun; }

# runtime_pin RUNTIME: reads its row of the table into VERSION PACKAGE BINARY SHA256.
runtime_pin() {
    local runtime version arch package binary sum
    while read -r runtime version arch package binary sum; do
        [[ $runtime == "$1" && $arch == "$ARCH" ]] || continue
        VERSION=$version PACKAGE=$package BINARY=$binary SHA256=$sum
        return
    done <"$CHECKSUMS"
    die "$CHECKSUMS has no row for $1 on $ARCH"
}

manifest() { # RUNTIME SHA256
    printf '{"runtime":"%s","version":"%s","sha256":"%s","arch":"%s"}\n' "$1" "$VERSION" "$2" "$ARCH"
}

manifest_sha256() { sed -n 's/.*"sha256":"\([0-9a-f]*\)".*/\1/p' "$1"; }

# runtime_state RUNTIME: the root file system is complete, of the pinned version, and its copies of
# the host's libraries and certificates are as the host has them now. Quick: the binary is not read.
runtime_state() {
    local dir=$RUNTIMES_DIR/$1 sum library
    runtime_pin "$1"
    DETAIL="$dir is not there"
    [[ -f $dir/manifest.json ]] || return 1
    sum=$SHA256
    if [[ $sum == - ]]; then sum=$(manifest_sha256 "$dir/manifest.json"); fi
    DETAIL="$dir is not $1 $VERSION for $ARCH"
    [[ $(<"$dir/manifest.json") == "$(manifest "$1" "$sum")" ]] || return 1
    DETAIL="$dir/rootfs has no /usr/bin/$1"
    [[ -x $dir/rootfs/usr/bin/$1 ]] || return 1
    while read -r library; do
        DETAIL="$dir/rootfs is behind the host's $library"
        cmp -s "$library" "$dir/rootfs$library" || return 1
    done < <(libraries_of "$dir/rootfs/usr/bin/$1" && echo "$HOST_CERTIFICATES")
    DETAIL="$1 $VERSION"
}

# runtime_verify RUNTIME: what runtime_state leaves out because it takes a second or more.
runtime_verify() {
    local binary=$RUNTIMES_DIR/$1/rootfs/usr/bin/$1
    # The manifest has the pinned sum (runtime_state has seen to that), or what --trust-registry took.
    DETAIL="$binary was changed since it was installed (remove $RUNTIMES_DIR/$1, then run scripts/setup)"
    [[ $(sha256_of "$binary") == "$(manifest_sha256 "$RUNTIMES_DIR/$1/manifest.json")" ]] || return 1
    DETAIL="$1 $VERSION, unchanged"
    if ! $SMOKE_TEST; then
        return 0
    elif ((EUID != 0)); then
        DETAIL+=", not started (that needs root)"
    elif ! have runsc; then
        DETAIL+=", not started (runsc is missing)"
    elif smoke_test "$1" "$RUNTIMES_DIR/$1/rootfs" >/dev/null; then
        DETAIL+=", runs in a sandbox"
    else
        DETAIL+=", but does not run in a sandbox (scripts/setup says why)"
        return 1
    fi
}

sha256_of() { sha256sum "$1" | cut -d ' ' -f 1; }

# runtime_install RUNTIME: built beside the target and renamed, so that it is whole or not there.
runtime_install() {
    local runtime=$1 new
    runtime_pin "$runtime"
    new=$(mktemp -d "$RUNTIMES_DIR/.new.XXXXXX")
    chmod 755 "$new"
    runtime_binary "$runtime" "$new/binary"
    say "building the root file system of $runtime $VERSION"
    manifest "$runtime" "$(sha256_of "$new/binary")" >"$new/manifest.json"
    build_rootfs "$runtime" "$new/binary" "$new/rootfs"
    rm "$new/binary"
    if $SMOKE_TEST; then
        say "trying $runtime in a sandbox"
        smoke_test "$runtime" "$new/rootfs" || die "$runtime does not run in a sandbox on this host" \
            "gVisor needs root on a host or virtual machine of your own; many containers forbid it" \
            "to go on all the same (GPU jobs only, or DISABLE_GVISOR=true): --no-smoke-test"
    fi
    replace_directory "$new" "$RUNTIMES_DIR/$runtime"
}

# replace_directory NEW TARGET
replace_directory() {
    local old
    old=$(mktemp -d "${2%/*}/.new.XXXXXX")
    if [[ -e $2 ]]; then mv "$2" "$old/"; fi
    mv "$1" "$2"
    rm -rf "$old"
}

# runtime_binary RUNTIME TARGET: the pinned binary, from the copy in place if that is still good
# (when only the host's libraries changed), else from npm.
runtime_binary() {
    local present=$RUNTIMES_DIR/$1/rootfs/usr/bin/$1
    if [[ -f $present && $(sha256_of "$present") == "$SHA256" ]]; then
        cp "$present" "$2"
        return
    fi
    say "downloading $1 $VERSION (npm: $PACKAGE)"
    npm_fetch "$PACKAGE@$VERSION" "$BINARY" "$2"
    check_sum "$1" "$2"
    chmod 755 "$2"
}

# npm_fetch PACKAGE@VERSION PATH TARGET: one file out of a package. npm picks the registry, proxy and
# credentials as this machine has them, checks the archive's integrity, and runs no script of it.
npm_fetch() {
    local dir
    dir=$(mktemp -d "$WORK_DIR/npm.XXXXXX")
    (cd "$dir" && npm pack --silent "$1") >"$dir/log" 2>&1 </dev/null ||
        die_npm "$1" "$dir"
    tar -xzf "$dir"/*.tgz -C "$dir" "package/$2" 2>>"$dir/log" ||
        die_with_log "$dir/log" "the package $1 has no file $2" "correct $CHECKSUMS"
    mv "$dir/package/$2" "$3"
    rm -rf "$dir"
}

die_npm() { # PACKAGE@VERSION DIRECTORY
    # --silent leaves the reason out: ask again, aloud.
    (cd "$2" && npm pack "$1") >"$2/log" 2>&1 </dev/null || true
    die_with_log "$2/log" "npm could not download $1" \
        "see what npm says above; try by hand: npm pack $1" \
        "the registry is the one that npm is configured for: npm config get registry"
}

check_sum() { # RUNTIME FILE
    local sum
    sum=$(sha256_of "$2")
    [[ $sum == "$SHA256" ]] && return
    [[ $SHA256 == - ]] || die "the download of $PACKAGE@$VERSION is not the pinned one" \
        "expected $SHA256" "received $sum" \
        "do not use it; see images/runtimes/README.md if the pin itself is to change"
    $TRUST_REGISTRY || die "no checksum of $1 $VERSION for $ARCH is recorded yet" \
        "received $sum" \
        "if you know this sum to be right, put it into images/runtimes/checksums.txt," \
        "or accept what the registry served: scripts/setup --trust-registry"
    say "accepted on the registry's word: $1 $VERSION $ARCH $sum"
}

# Node brings its own list of authorities; a company's own is in the host's. Both are good here.
export NODE_EXTRA_CA_CERTS=${NODE_EXTRA_CA_CERTS:-$HOST_CERTIFICATES}

# ---- the root file system --------------------------------------------------------------------------

# libraries_of BINARY: the loader and the libraries that it needs, by the paths it looks for them at.
libraries_of() { ldd "$1" | awk '$2 == "=>" && $3 ~ /^\// { print $3 } $1 ~ /^\// { print $1 }' | sort -u; }

# build_rootfs RUNTIME BINARY TARGET. See images/runtimes/README.md for what is in it and why.
build_rootfs() {
    local root=$3 library
    if ldd "$2" | grep -F 'not found' >&2; then die "$1 $VERSION needs a library that this host lacks (above)"; fi
    mkdir -p "$root"/{dev,etc/ssl/certs,proc,runtime,tmp/.deno/{gen,remote},usr/bin,workspace/node_modules}
    cp "$2" "$root/usr/bin/$1"
    while read -r library; do
        mkdir -p "$root${library%/*}"
        cp -L "$library" "$root$library"
    done < <(libraries_of "$2")
    cp -L "$HOST_CERTIFICATES" "$root$HOST_CERTIFICATES"
    echo 'sandbox:x:65534:65534:sandbox:/tmp:/nonexistent' >"$root/etc/passwd"
    echo 'sandbox:x:65534:' >"$root/etc/group"
    echo 'hosts: files dns' >"$root/etc/nsswitch.conf"
    # Whatever umask and owner set-up ran with: root's, readable by all, writable by none but root.
    chown -R 0:0 "$root"
    chmod -R u=rwX,go=rX "$root"
    chmod 1777 "$root/tmp"
}

# ---- the smoke test --------------------------------------------------------------------------------

# smoke_test RUNTIME ROOTFS: a program runs under gVisor as nobody, without capabilities, and cannot
# write. On failure it prints what runsc and the program said.
smoke_test() {
    local runtime=$1 bundle answer arguments wanted='65534 0000000000000000 refused'
    local program='
        import fs from "node:fs"; import process from "node:process";
        let write = "allowed";
        try { fs.writeFileSync("/usr/bin/probe", "") } catch { write = "refused" }
        const capabilities = /CapEff:\s*(\w+)/.exec(fs.readFileSync("/proc/self/status", "utf8"))[1];
        console.log(process.getuid(), capabilities, write);'
    case $runtime in
    deno) arguments='"/usr/bin/deno", "run", "--quiet", "--allow-all", "/runtime/probe.mjs"' ;;
    bun) arguments='"/usr/bin/bun", "/runtime/probe.mjs"' ;;
    esac
    bundle=$(mktemp -d)
    chmod 755 "$bundle"
    mkdir "$bundle/program"
    echo "$program" >"$bundle/program/probe.mjs"
    chmod -R go+rX "$bundle"
    smoke_test_config "$2" "$bundle/program" "$arguments" >"$bundle/config.json"
    # The answer goes through a pipe: runsc writes to a file from its own offset, over what is there.
    answer=$(timeout -k 5 60 runsc --root "$bundle/state" --network=none --platform=systrap \
        --ignore-cgroups run --bundle "$bundle" "cloister-setup-$$" 2>"$bundle/log" </dev/null) || true
    if [[ $answer != "$wanted" ]]; then
        {
            echo "       expected: $wanted"
            echo "       answered: ${answer:-(nothing)}"
            tail -n 12 "$bundle/log" | sed 's/^/       | /'
        } >&2
    fi
    rm -rf "$bundle"
    [[ $answer == "$wanted" ]]
}

smoke_test_config() { # ROOTFS PROGRAM-DIRECTORY ARGUMENTS
    cat <<END
{
  "ociVersion": "1.0.2",
  "process": {
    "user": {"uid": 65534, "gid": 65534},
    "args": [$3],
    "env": ["PATH=/usr/bin", "HOME=/tmp", "NO_COLOR=1"],
    "cwd": "/tmp",
    "noNewPrivileges": true,
    "capabilities": {"bounding": [], "effective": [], "permitted": [], "inheritable": [], "ambient": []}
  },
  "root": {"path": "$1", "readonly": true},
  "mounts": [
    {"destination": "/proc", "type": "proc", "source": "proc"},
    {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev", "size=16m"]},
    {"destination": "/runtime", "type": "bind", "source": "$2", "options": ["bind", "ro"]}
  ],
  "linux": {"namespaces": [{"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}]}
}
END
}
