#!/usr/bin/env bash
# Run parts of the GPU kit.  Needs no network, and nothing installed but torch and the packages that wheels.txt leaves
# to the machine.
#
#   run.sh PART...    run.sh --help lists the parts
#
# The Python is $PYTHON; else .venv, if make made it; else benchmarks/gpu/.venv, made here: python3 and its packages,
# and over them the wheels that wheels.sh collected (in $ERASEBENCH_WHEELS, or benchmarks/gpu/wheels) and this checkout.
set -euo pipefail

# Not changed to: folders that are given are relative to where the caller is.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
here=$root/benchmarks/gpu
venv=$here/.venv
wheels=${ERASEBENCH_WHEELS:-$here/wheels}
export PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1 PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH}

complain() {
    printf 'run.sh: %s\n' "$@" >&2
    complete=false
}

install() { # says something only if it fails
    local said
    said=$(PIP_CONFIG_FILE=/dev/null python3 -m pip --isolated --disable-pip-version-check --no-cache-dir \
        --python "$venv/bin/python" install --quiet --no-index --no-deps --no-compile "$@" 2>&1) ||
        { printf '%s\n' "$said" >&2 && return 1; }
}

# All that the environment is made of.
ingredients() {
    echo "$root"
    python3 -c 'import sys; print(sys.executable, sys.version)'
    sha256sum "$here/run.sh" "$here/wheels.txt" "$root/pyproject.toml"
    [ ! -e "$wheels" ] || find "$wheels" -name '*.whl' -exec sha256sum {} + | sort
}

build() {
    rm -rf "$venv"
    if ! python3 -m venv --without-pip "$venv"; then
        complain "cannot make $venv; going on with python3 as it is"
        python=python3
        return
    fi
    # python3 may be a virtual environment's itself, whose packages --system-site-packages would pass over.  The name
    # is the last in order, so that what is installed here comes first.
    python3 - >"$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/zz-python3.pth" <<'END'
import site
folders = [site.getusersitepackages()] * bool(site.ENABLE_USER_SITE) + site.getsitepackages()
for folder in folders:
    print(f"import site; site.addsitedir({folder!r})")
END
    local wheel
    if ! compgen -G "$wheels/*.whl" >/dev/null; then
        complain "no wheels in $wheels; where there is a network, run $here/wheels.sh"
    elif ! install "$wheels"/*.whl 2>/dev/null; then
        for wheel in "$wheels"/*.whl; do
            install "$wheel" || complain "cannot install $wheel"
        done
    fi
    install --no-build-isolation --editable "$root" || complain "cannot install this checkout"
}

if [ -n "${PYTHON:-}" ]; then
    python=$PYTHON
elif [ -x "$root/.venv/bin/python" ]; then
    python=$root/.venv/bin/python
else
    python=$venv/bin/python
    made_of=$(ingredients)
    if [ "$made_of" != "$(cat "$venv/ingredients" 2>/dev/null)" ]; then
        echo "making $venv" >&2
        complete=true
        build
        [ $complete = false ] || printf '%s\n' "$made_of" >"$venv/ingredients"
    fi
fi
exec "$python" -m benchmarks.gpu "$@"
