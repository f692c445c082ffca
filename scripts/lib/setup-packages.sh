# shellcheck shell=bash
# Sourced by scripts/setup: what comes from the system's packages, and the Rust toolchain.
# shellcheck disable=SC2034  # DETAIL is read by scripts/setup

# The oldest runsc with systrap and --pass-fd that Debian has.
readonly RUNSC_OLDEST=20240729

have() { command -v "$1" >/dev/null; }

# ---- apt -------------------------------------------------------------------------------------------

# apt_run OPTIONS... : apt-get that asks nothing, waits for another apt, and insists on signatures
# even where the machine's own configuration was loosened.
apt_run() {
    DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 \
        -o APT::Get::AllowUnauthenticated=false -o Acquire::AllowInsecureRepositories=false \
        -o Acquire::AllowDowngradeToInsecureRepositories=false -o Acquire::AllowWeakRepositories=false \
        "$@" </dev/null
}

APT_IS_FRESH=false
apt_refresh() {
    $APT_IS_FRESH && return
    have apt-get || return 0
    say "reading the package lists (apt)"
    # A broken source that has nothing to do with us must not stop us; the installation will tell.
    apt_run update >"$WORK_DIR/apt.log" 2>&1 || true
    APT_IS_FRESH=true
}

# apt_install PACKAGE...
apt_install() {
    have apt-get || die "this system has no apt, and something is missing: $*" \
        "install it by hand (the names are Debian's), then run this again"
    apt_refresh
    say "installing $* (apt)"
    apt_run install -y --no-install-recommends "$@" >"$WORK_DIR/apt.log" 2>&1 ||
        die_with_log "$WORK_DIR/apt.log" "apt could not install: $*" \
            "see what apt says above; try by hand: apt-get update && apt-get install $*"
}

# die_with_log FILE WHAT [WHAT TO DO]...: the end of a log first, then the error.
die_with_log() {
    tail -n 12 "$1" | sed 's/^/       | /' >&2
    shift
    die "$@"
}

# apt_candidate PACKAGE [APT OPTION]...: the version that apt would install, or nothing.
apt_candidate() {
    local package=$1
    shift
    have apt-cache || return 0
    apt-cache "$@" policy "$package" 2>/dev/null | sed -n 's/^ *Candidate: *//p' | grep -vxF '(none)' || true
}

# apt_sources: this machine's package sources, one per line: "URI SUITE KEYRING". Both of apt's
# formats are read, so that a mirror is taken from the machine and never from this file. The
# components are not: what we look for is in main, which every Debian source has.
apt_sources() {
    local file
    for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
        [[ -f $file ]] && awk '
            $1 == "deb" {
                key = "-"; i = 2
                if ($2 ~ /^\[/) {
                    options = ""
                    do { options = options " " $i } while ($(i++) !~ /\]$/ && i <= NF)
                    if (match(options, /signed-by=[^] ]+/)) key = substr(options, RSTART + 10, RLENGTH - 10)
                }
                print $i, $(i + 1), key
            }' "$file"
    done
    for file in /etc/apt/sources.list.d/*.sources; do
        [[ -f $file ]] && awk '
            function flush(    u, s, i, j, m, n) {
                if (value["types"] ~ /(^| )deb( |$)/ && value["enabled"] !~ /^ *(no|false|0)/) {
                    m = split(value["uris"], u); n = split(value["suites"], s)
                    key = value["signed-by"]; gsub(/^ +| +$/, "", key)
                    if (key !~ /^\/[^ ]*$/) key = "-"       # a key in the file itself, or none
                    for (i = 1; i <= m; i++) for (j = 1; j <= n; j++) print u[i], s[j], key
                }
                delete value
            }
            /^#/ { next }
            /^[ \t]*$/ { flush(); next }
            /^[^ \t]/ { name = tolower($0); sub(/:.*/, "", name); sub(/^[^:]*:/, "") }
            { value[name] = value[name] " " $0 }
            END { flush() }' "$file"
    done
    return 0
}

# ---- build tools -----------------------------------------------------------------------------------

compiler_state() {
    local tool missing=()
    for tool in cc make pkg-config; do have "$tool" || missing+=("$tool"); done
    DETAIL="not found: ${missing[*]}"
    ((${#missing[@]} == 0)) && DETAIL="C compiler"
}

# libc6-dev: without recommendations gcc comes without the C library's headers.
compiler_install() { apt_install gcc libc6-dev make pkg-config; }

rust_pinned() { sed -n 's/^channel *= *"\(.*\)"/\1/p' "$CHECKOUT/rust-toolchain.toml" 2>/dev/null; }

rust_state() {
    local wanted version
    wanted=$(rust_pinned) || wanted=
    DETAIL="no cargo on PATH"
    if ! have cargo; then
        if [[ -x ${HOME:-/root}/.cargo/bin/cargo ]]; then
            DETAIL="cargo is in ~/.cargo/bin, which PATH lacks"
        fi
        return 1
    fi
    # In the checkout, so that rustup's cargo answers for the pinned toolchain (and fetches it).
    if ! version=$(cd "$CHECKOUT" && cargo --version 2>/dev/null </dev/null); then
        DETAIL="cargo is there, but cannot give Rust $wanted"
        return 1
    fi
    version=${version#cargo } version=${version%% *}
    DETAIL="Rust $version, older than $wanted"
    if is_older "$version" "$wanted"; then return 1; fi
    DETAIL="Rust $version"
}

# is_older A B: version A comes before version B.
is_older() { [[ $1 != "$2" && $(printf '%s\n' "$1" "$2" | sort -V | head -n 1) == "$1" ]]; }

rust_install() {
    local reason=$DETAIL
    if ! have cargo && [[ $reason == no\ cargo* ]]; then
        apt_refresh
        if [[ -n $(apt_candidate rustup) ]]; then
            apt_install rustup
            say "fetching Rust $(rust_pinned) (rustup)"
            (cd "$CHECKOUT" && cargo --version) >"$WORK_DIR/rustup.log" 2>&1 ||
                die_with_log "$WORK_DIR/rustup.log" "rustup could not fetch Rust $(rust_pinned)" \
                    "check that this machine reaches Rust's download server, then run this again"
            return
        fi
    fi
    die "Rust: $reason" \
        "this checkout needs Rust $(rust_pinned), by rustup: your system's package \"rustup\"" \
        "(Debian 13, Ubuntu 24.04) or the installer that the Rust project offers" \
        "if it is installed for another user, pass PATH on: sudo -E env \"PATH=\$PATH\" scripts/setup"
}

# ---- certificates, npm -----------------------------------------------------------------------------

readonly HOST_CERTIFICATES=/etc/ssl/certs/ca-certificates.crt

certificates_state() {
    DETAIL="$HOST_CERTIFICATES is not there"
    [[ -s $HOST_CERTIFICATES ]] && DETAIL="CA certificates"
}

certificates_install() { apt_install ca-certificates; }

npm_state() {
    DETAIL="no npm on PATH"
    have npm && DETAIL="npm"
}

npm_install() {
    say "npm comes as several hundred small packages: this takes minutes"
    apt_install npm
}

# ---- registries ------------------------------------------------------------------------------------

# Where sandboxes install dependencies from: this machine's own npm registry, for the daemon to read.
registries_state() {
    local wanted
    DETAIL="npm's registry is not written down in $STATE_DIR/registries"
    wanted=$(npm config get registry 2>/dev/null) || return 1
    # Lines below the first are the operator's own.
    [[ -f $STATE_DIR/registries && $(head -n 1 "$STATE_DIR/registries") == "$wanted" ]] || return 1
    DETAIL="registry"
}

registries_install() {
    local registry others=
    registry=$(npm config get registry 2>/dev/null) || die "npm does not tell its registry" "try: npm config get registry"
    if [[ -f $STATE_DIR/registries ]]; then others=$(tail -n +2 "$STATE_DIR/registries"); fi
    printf '%s\n' "$registry" ${others:+"$others"} >"$STATE_DIR/.new.registries"
    chmod 644 "$STATE_DIR/.new.registries"
    mv "$STATE_DIR/.new.registries" "$STATE_DIR/registries"
}

# ---- runsc, crun -----------------------------------------------------------------------------------

# runsc_date TEXT: the date in gVisor's "release-20240729.0" or Debian's "0.0~20240729.0-4", or 0.
runsc_date() { [[ $1 =~ (20[0-9]{6}) ]] && echo "${BASH_REMATCH[1]}" || echo 0; }

runsc_state() {
    DETAIL="no runsc on PATH"
    have runsc || return 1
    local date
    date=$(runsc_date "$(runsc --version 2>/dev/null)")
    DETAIL="runsc $date, older than $RUNSC_OLDEST"
    ((date >= RUNSC_OLDEST)) && DETAIL="runsc $date"
}

runsc_install() {
    apt_refresh
    if (($(runsc_date "$(apt_candidate runsc)") >= RUNSC_OLDEST)); then
        apt_install runsc
    elif have apt-get; then
        runsc_install_from_backports
    else
        die "$DETAIL" "install gVisor's runsc, release $RUNSC_OLDEST or newer, then run this again"
    fi
    runsc_state && return
    # The package is in, and yet another runsc answers: an older one comes first on PATH.
    die "$(command -v runsc) comes first on PATH: $DETAIL" \
        "remove it or put the directory of the newer one first, then run this again"
}

# Debian 12 has the new runsc in its backports only. A private list of sources names them for this one
# installation; the machine's own lists stay as they are.
runsc_install_from_backports() {
    local codename uri suite keyring tried=() options
    # shellcheck source=/dev/null
    codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
    options=(-o "Dir::Etc::sourcelist=$WORK_DIR/backports.sources" -o Dir::Etc::sourceparts=-
        -o "Dir::State::lists=$WORK_DIR/lists")
    # apt reads its lists as a user of its own.
    chmod 755 "$WORK_DIR"
    while read -r uri suite keyring; do
        [[ $suite == "$codename" ]] || continue
        say "looking for runsc in $codename-backports"
        tried+=("$uri")
        rm -rf "$WORK_DIR/lists" && mkdir -p "$WORK_DIR/lists/partial"
        backports_stanza "$uri" "$codename-backports" "$keyring" >"$WORK_DIR/backports.sources"
        apt_run "${options[@]}" update >"$WORK_DIR/apt.log" 2>&1 || continue
        (($(runsc_date "$(apt_candidate runsc "${options[@]}")") >= RUNSC_OLDEST)) || continue
        say "installing runsc ($codename-backports)"
        apt_run "${options[@]}" install -y --no-install-recommends -t "$codename-backports" runsc \
            >"$WORK_DIR/apt.log" 2>&1 ||
            die_with_log "$WORK_DIR/apt.log" "apt could not install runsc from $codename-backports"
        return
    done < <(apt_sources | sort -u)
    if ((${#tried[@]})); then tail -n 5 "$WORK_DIR/apt.log" | sed 's/^/       | /' >&2; fi
    die "no package of runsc $RUNSC_OLDEST or newer was found" \
        "looked in the machine's own sources and in ${codename:-?}-backports of: ${tried[*]:-(no source for ${codename:-this system})}" \
        "install gVisor's runsc by hand (any release since $RUNSC_OLDEST, on PATH), then run this again"
}

# backports_stanza URI SUITE KEYRING. Options such as trusted=yes are left behind on purpose. Without
# a key ring of its own the source is checked against Debian's, else against those apt trusts anyway.
backports_stanza() {
    local keyring=$3 debian=/usr/share/keyrings/debian-archive-keyring.gpg
    if [[ $keyring == - && -f $debian ]]; then keyring=$debian; fi
    printf 'Types: deb\nURIs: %s\nSuites: %s\nComponents: main\n' "$1" "$2"
    if [[ $keyring != - ]]; then printf 'Signed-By: %s\n' "$keyring"; fi
}

# Both: crun is preferred, and refuses hosts with hybrid cgroups, where runc works.
crun_state() {
    DETAIL="crun or runc is not on PATH"
    have crun && have runc && DETAIL="crun and runc"
}

crun_install() { apt_install crun runc; }

# ---- a registry of images, for the tests -----------------------------------------------------------

# Its program alone: the package would also start a service that listens to everybody.
oci_registry_state() {
    DETAIL="$STATE_DIR/oci-registry is not there"
    [[ -x $STATE_DIR/oci-registry/docker-registry ]] && DETAIL="docker-registry"
}

oci_registry_verify() {
    DETAIL="$STATE_DIR/oci-registry/docker-registry does not run (remove $STATE_DIR/oci-registry, then run scripts/setup --with-registry)"
    "$STATE_DIR/oci-registry/docker-registry" --version >/dev/null 2>&1 && DETAIL="docker-registry"
}

oci_registry_install() {
    local new
    have apt-get || die "this system has no apt, and the tests need Debian's docker-registry" \
        "put a docker-registry (2.8) into $STATE_DIR/oci-registry by hand, then run this again"
    apt_refresh
    say "fetching docker-registry (apt)"
    new=$(mktemp -d "$STATE_DIR/.new.XXXXXX")
    chmod 755 "$new"
    (cd "$WORK_DIR" && apt_run download docker-registry) >"$WORK_DIR/apt.log" 2>&1 ||
        die_with_log "$WORK_DIR/apt.log" "apt could not download docker-registry" \
            "see what apt says above; try by hand: apt-get download docker-registry"
    dpkg-deb -x "$WORK_DIR"/docker-registry_*.deb "$WORK_DIR/oci-registry"
    cp "$WORK_DIR/oci-registry/usr/bin/docker-registry" "$new/docker-registry"
    replace_directory "$new" "$STATE_DIR/oci-registry"
}
