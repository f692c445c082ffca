# shellcheck shell=bash
# Sourced by scripts/setup: Python environments out of hash-pinned lists of wheels, and the tests' oracles.
# shellcheck disable=SC2034,SC2153  # DETAIL is read by scripts/setup, which sets the capitals

# The Pythons that images/comfyui and tests/oracle have wheels for: 3.11 to 3.14.
readonly PYTHON_OLDEST=11 PYTHON_NEWEST=14

# ---- the interpreter -------------------------------------------------------------------------------

# python_find: prints the first interpreter on PATH that is new enough, not too new, and can make environments.
python_find() {
    local name
    for name in python3 python3.1{1,2,3,4}; do
        have "$name" || continue
        "$name" -c "
import sys, venv, ensurepip
if not (3, $PYTHON_OLDEST) <= sys.version_info[:2] <= (3, $PYTHON_NEWEST): sys.exit(1)
print(sys.executable)" 2>/dev/null && return
    done
    return 1
}

python_state() {
    DETAIL="no Python 3.$PYTHON_OLDEST to 3.$PYTHON_NEWEST with venv on PATH"
    local python
    python=$(python_find) || return 1
    DETAIL=$("$python" --version)
}

python_install() {
    apt_install python3 python3-venv
    python_state && return
    die "$DETAIL" "this system's own is $(python3 --version 2>&1): install a newer one beside it, then run this again" \
        "or do without: scripts/setup --no-comfyui"
}

# ---- environments ----------------------------------------------------------------------------------

# python_environment DIR: a new, empty environment.
python_environment() {
    "$(python_find)" -m venv "$1" >"$WORK_DIR/venv.log" 2>&1 </dev/null ||
        die_with_log "$WORK_DIR/venv.log" "Python could not make an environment in $1"
}

# python_wheels DIR LIST...: what the lists name, wheels alone, each compared with its sum. pip picks the index, proxy and
# credentials as this machine has them. Nothing is built, and no dependency is followed that is not on a list.
python_wheels() {
    local dir=$1 list lists=()
    shift
    for list; do lists+=(--requirement "$list"); done
    # Gigabytes: not into /tmp, which may be small, or RAM.
    mkdir "$dir/.download"
    TMPDIR=$dir/.download "$dir/bin/python" -m pip --disable-pip-version-check --no-input install --no-deps --no-compile --require-hashes \
        --only-binary :all: --progress-bar off "${lists[@]}" >"$WORK_DIR/pip.log" 2>&1 </dev/null ||
        die_with_log "$WORK_DIR/pip.log" "pip could not install what ${*##*/} names" \
            "see what pip says above; try by hand: $(python_find) -m pip download --no-deps PACKAGE==VERSION" \
            "the index is the one that pip is configured for: pip config list"
    rm -rf "$dir/.download"
}

# python_settle DIR TARGET: compiles what is in DIR, which moves to TARGET, and makes its programs say so. Otherwise each
# start would compile anew, for ComfyUI 12 s of it.
python_settle() {
    local script
    for script in "$1"/bin/*; do
        if [[ -f $script && ! -L $script ]]; then sed -i "s|$1|$2|g" "$script"; fi
    done
    sed -i "s|$1|$2|g" "$1/pyvenv.cfg"
    python_compile "$1/bin/python" "$1" "$2"
}

# python_compile PYTHON DIR TARGET. A package may hold a file for another Python, or a broken one as a test: not our matter.
python_compile() { "$1" -m compileall -q -j 0 -s "$2" -p "$3" "$2" >"$WORK_DIR/compile.log" 2>&1 </dev/null || true; }

# python_lasts PYTHON VERSION: an environment's interpreter is still the one it was made with.
python_lasts() { [[ -x $1 && $("$1" --version 2>/dev/null) == "$2" ]]; }

# ---- the oracles -----------------------------------------------------------------------------------

readonly ORACLE_SOURCE=$CHECKOUT/tests/oracle

# What an environment was made of. It is written last, so that where it is right, all is there.
oracle_manifest() { cat "$ORACLE_SOURCE/requirements.txt" "$ORACLE_SOURCE/package-lock.json" | sha256sum | cut -d ' ' -f 1; }

oracle_state() {
    local dir=$STATE_DIR/oracle
    DETAIL="$dir is not there"
    [[ -f $dir/manifest ]] || return 1
    DETAIL="$dir is not what tests/oracle asks for now"
    [[ $(<"$dir/manifest") == "$(oracle_manifest)" ]] || return 1
    DETAIL="$dir has lost its Python"
    "$dir/bin/python" -c '' 2>/dev/null || return 1
    DETAIL="test oracles (runpod $(pinned runpod), PyNaCl $(pinned pynacl), tweetnacl)"
}

pinned() { sed -n "s/^$1==\([^ ]*\).*/\1/p" "$ORACLE_SOURCE/requirements.txt"; }

oracle_verify() {
    DETAIL="$STATE_DIR/oracle is there, but does not work (remove it, then run scripts/setup --with-oracle)"
    oracle_works "$STATE_DIR/oracle" || return 1
    oracle_state
}

oracle_works() {
    "$1/bin/python" -c 'import nacl.public, runpod' 2>"$WORK_DIR/oracle.log" </dev/null &&
        (cd "$1" && node -e 'require("tweetnacl").box.keyPair()') 2>>"$WORK_DIR/oracle.log" </dev/null
}

oracle_install() {
    local new
    new=$(mktemp -d "$STATE_DIR/.new.XXXXXX")
    chmod 755 "$new"
    say "installing the tests' oracles: the RunPod SDK, PyNaCl, tweetnacl (pip, npm; half a minute)"
    python_environment "$new"
    python_wheels "$new" "$ORACLE_SOURCE/requirements.txt"
    cp "$ORACLE_SOURCE"/package{,-lock}.json "$new/"
    (cd "$new" && npm ci --ignore-scripts --no-audit --no-fund --silent) >"$WORK_DIR/npm.log" 2>&1 </dev/null ||
        die_with_log "$WORK_DIR/npm.log" "npm could not install what tests/oracle/package-lock.json names"
    python_settle "$new" "$STATE_DIR/oracle"
    oracle_works "$new" || die_with_log "$WORK_DIR/oracle.log" "the tests' oracles do not run"
    oracle_manifest >"$new/manifest"
    replace_directory "$new" "$STATE_DIR/oracle"
}
