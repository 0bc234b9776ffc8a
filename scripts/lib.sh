# Shared by the scripts: sourced, not run.
# shellcheck shell=bash

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"

# What tests and benchmarks need of the project, so that they share an environment.
# shellcheck disable=SC2034
test_extras="opencv,openvino,plot,demo,fleet,pkcs11,test"

# Prints the first Python of at least 3.10 that can make virtual environments.
find_python() {
  local candidate
  for candidate in "${VIGIA_PYTHON:-}" python3 python3.12 python3.11 python3.10; do
    [ -n "$candidate" ] || continue
    if "$candidate" -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
      echo "$candidate"
      return 0
    fi
  done
  echo "error: no Python >= 3.10 with the venv module found; on Debian: apt-get install python3-venv" >&2
  return 2
}

# make_environment FOLDER EXTRAS: a virtual environment with Vigia (editable) and the extras, made
# again only when the interpreter, the extras or pyproject.toml have changed.
make_environment() {
  local folder="$1" extras="$2" python stamp
  python="$(find_python)" || return 2
  stamp="$("$python" -VV) $extras $(cksum <"$root/pyproject.toml")"
  if [ -x "$folder/bin/vigia" ] && [ "$(cat "$folder/stamp" 2>/dev/null)" = "$stamp" ]; then
    return 0
  fi
  echo "making the environment $folder (once) ..." >&2
  rm -rf "$folder"
  "$python" -m venv "$folder" || return 2
  if ! "$folder/bin/python" -m pip install --quiet --disable-pip-version-check \
      --editable "$root[$extras]" >"$folder/pip.log" 2>&1; then
    tail -n 20 "$folder/pip.log" >&2
    echo "error: installing failed; the whole log is in $folder/pip.log" >&2
    return 2
  fi
  echo "$stamp" >"$folder/stamp"
}
