#!/usr/bin/env bash
# Run the fast suite with the lowest or the newest releases that pyproject.toml allows, in an environment of its own:
#
#   tests/versions.sh lowest | newest [FOLDER OF THE ENVIRONMENT]
#
# Needs uv and a package index that has a build of torch for this machine. Where it lacks some release, name another in a
# file, such as a line `torch==2.13.0`: UV_OVERRIDE=FILE tests/versions.sh newest
set -euo pipefail
cd "$(dirname "$0")/.."

# What is only for developers may be as new as it likes: the bounds that are proven are those of the package. For the
# lowest there are no more tools than the fast suite needs: gradio and mkdocs want newer releases than the package does.
case "${1:-}" in
    lowest) resolution=lowest-direct tested=(--editable . hatchling httpx hypothesis markdown-it-py nbclient polars pytest) ;;
    newest) resolution=highest tested=(--editable '.[dev]') ;;
    *) sed -n '2,7s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac
folder=${2:-$(mktemp -d)}
mkdir -p "$folder"

extras=(--extra explain --extra fast --extra lora --extra onnx --extra ray --extra serve --extra sweep --extra tensorboard)
uv pip compile --quiet --resolution "$resolution" pyproject.toml "${extras[@]}" --upgrade --output-file "$folder/releases.txt"
uv venv --quiet --clear --seed "$folder/environment"
export VIRTUAL_ENV="$folder/environment"
uv pip install --quiet --requirement "$folder/releases.txt"
uv pip install --quiet "${tested[@]}" --constraint "$folder/releases.txt"
uv pip freeze | grep -i -E '^(torch|transformers|tokenizers|datasets|accelerate|numpy|huggingface)'
exec "$VIRTUAL_ENV/bin/python" -m pytest -q -m 'not slow'
