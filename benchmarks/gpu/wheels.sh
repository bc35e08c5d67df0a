#!/usr/bin/env bash
# Collect the wheels of wheels.txt, for run.sh on a machine without a network.
#
#   wheels.sh [FOLDER]    FOLDER is benchmarks/gpu/wheels unless given; wheels that it had are replaced
#
# Variables: PYTHON_VERSION, the other machine's (3.12); PYTHON, the one whose pip downloads.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
folder=${1:-$here/wheels}
limit=60 # MB, the checkout but for results/ and the wheels together
python=${PYTHON:-$root/.venv/bin/python}
[ -x "$python" ] || python=${PYTHON:-python3}

fetch() {
    "$python" -m pip --disable-pip-version-check download -qq --no-deps --only-binary=:all: \
        --implementation cp --python-version "${PYTHON_VERSION:-3.12}" \
        --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 \
        --dest "$new" "$@"
}

size() { # of the files named on standard input, in MB
    { xargs -0 stat --format=%s 2>/dev/null || true; } | awk '{ sum += $1 } END { printf "%.1f", sum / 1e6 }'
}

new=$(mktemp -d)
trap 'rm -rf "$new"' EXIT
fetch --requirement "$here/wheels.txt"

# pydantic works with one release of pydantic-core only, which need not be the newest.
core=$("$python" - "$new"/pydantic-[0-9]*.whl <<'END'
import re, sys, zipfile
wheel = zipfile.ZipFile(sys.argv[1])
[name] = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
print(*re.findall(r"^Requires-Dist: (pydantic-core==[\w.]+)", wheel.read(name).decode(), re.MULTILINE)[:1])
END
)
if [ -n "$core" ]; then
    rm "$new"/pydantic_core-*.whl
    fetch "$core"
fi

mkdir -p "$folder"
rm -f "$folder"/*.whl
mv "$new"/*.whl "$folder"

wheels=$(printf '%s\0' "$folder"/*.whl | size)
checkout=$(cd "$root" && git ls-files -z --cached --others --exclude-standard -- ':!results' | size)
sum=$(awk "BEGIN { print $wheels + $checkout }")
echo "$(find "$folder" -name '*.whl' | wc -l) wheels in $folder: $wheels MB, with the checkout $sum MB"
if awk "BEGIN { exit !($sum > $limit) }"; then
    echo "error: that is more than $limit MB" >&2
    exit 1
fi
