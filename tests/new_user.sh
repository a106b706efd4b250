#!/usr/bin/env bash
# What a new user does in a first session, in the environment that `make quickstart` made: each step works, or is refused in one line.
# The README's commands run there too, beside the steps.
#   tests/new_user.sh [ENVIRONMENT]        .venv of this clone by default; a few minutes on 2 cores
set -euo pipefail

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
PATH="$(cd "${1:-$repo/.venv}" && pwd)/bin:$PATH"
work=$(mktemp -d)
cd "$work"
cp -r "$repo/recipes" .
export HF_HUB_OFFLINE=1 COLUMNS=100
python "$repo/tests/support/readme_commands.py" > readme.log 2>&1 &
readme=$!
trap 'kill "$readme" 2> /dev/null || true; cd /; rm -rf "$work"' EXIT

step() { printf '\n-- %s (%s s)\n' "$1" "$SECONDS"; }
# refused WORD COMMAND...: exit code 2, and one line on standard error that holds WORD
refused() {
    local word=$1 code=0
    shift
    "$@" > out 2> err || code=$?
    if [ "$code" != 2 ] || [ "$(wc -l < err)" != 1 ] || ! grep -qF -- "$word" err; then
        echo "expected exit code 2 and one line with '$word' of: $*; got $code and:" >&2
        cat err >&2
        exit 1
    fi
}
# says WORD COMMAND...: it succeeds and prints WORD, on whichever stream
says() {
    local word=$1
    shift
    "$@" > out 2>&1 || { cat out >&2; exit 1; }
    grep -qF -- "$word" out || { echo "expected '$word' of: $*; got:" >&2; cat out >&2; exit 1; }
}

small=(--set data.primary_size=260 --set data.size=120 --set data.test_rows=20 --set data.numbers=6 --set data.row_tokens=30
    --set artifacts.noise.rows=16 --set artifacts.noise.copies=30 --set artifacts.noise.probability=0.3 --set artifacts.backdoor.within=14
    --set artifacts.backdoor.copies=30 --set evaluation.prompt=12 --set evaluation.match=12 --set model.n_embd=48
    --set training.epochs=6 --set training.batch_size=64 --set training.learning_rate=4e-3)
recipe=recipes/quickstart.yaml

step "help and version"
says "tinymem" tinymem --version
says "Usage" tinymem -h
refused "No such command" tinymem rnu

step "recipes that explain themselves"
says "math.yaml" tinymem init math
refused "math.yaml" tinymem init math       # what is there stays
says "training.epochs" tinymem recipe keys training --format csv
says '"properties"' tinymem recipe schema

step "text of one's own"
for i in $(seq 300); do echo "Line $i of a small text that is about the number $((i * 7)) and about little else."; done > text.txt
says "data.tokenizer=own-tokenizer" tinymem data tokenizer text.txt --size 300 --out own-tokenizer
says "" tinymem cache

step "what would be done, then the run, then again"
says "Nothing was done" tinymem run $recipe "${small[@]}" --dry-run
test ! -e runs
says "report.html" tinymem run $recipe "${small[@]}" --set mitigation.methods='[act, random-weights]'
run=$(echo runs/quickstart-*)
test -s "$run/report.html"
says "done" tinymem runs
says "noise" tinymem show "$run" --rows 1
says "not shown: 1 result of earlier recipes on the same weights (random-weights)" tinymem run $recipe "${small[@]}" --set mitigation.methods=act
test "$(echo runs/quickstart-*)" = "$run"   # other methods join the run: README's names match one folder
points=$(wc -l < "$run/training/metrics.jsonl")
test "$points" -gt 2                        # a curve, not a line between two points

step "a recipe that plants nothing, and one without methods"
says "no method has been run yet" tinymem run $recipe "${small[@]}" --set name=bare --set mitigation.methods='[]' --set training.epochs=2
says "training rows" tinymem run $recipe "${small[@]:0:10}" --set name=plain --set artifacts='[]' --set mitigation.methods='[]' \
    --set evaluation.prompt=12 --set evaluation.match=12 --set model.n_embd=16 --set training.epochs=2

step "many runs"
{ sed 's/^name: .*/name: many/' $recipe; printf 'matrix: {seed: [0, 1]}\n'; } > many.yaml
says "many-seed1" tinymem train many.yaml --list
says "2 to run" tinymem run many.yaml "${small[@]}" --set model.n_embd=16 --set training.epochs=2 --set mitigation.methods='[random-weights]' --jobs 2
test -s runs/many.html
says "left aside: mitigation" tinymem train many.yaml "${small[@]}" --set model.n_embd=16 --set training.epochs=2 --only many-seed0

step "a sweep, and why runs were refused"
printf 'checkpoints: %s\nmethods:\n  - act: {ratio: [0.05, 0.0001]}\ngrid: none\n' "$run/checkpoint" > grid.yaml
says "refused" tinymem sweep grid.yaml
says "refused: 1 run of act" tinymem sweep grid.yaml --status
says '"progress": "2 of 2 runs' tinymem runs --json

step "one checkpoint: measured, edited, compared"
says "memorized" tinymem evaluate "$run/checkpoint"
tinymem evaluate "$run/checkpoint" --json | python -c 'import json, sys; assert json.load(sys.stdin)["memorized"]["noise"]["rows"]'
says "edited checkpoint: edited" tinymem mitigate "$run/checkpoint" --method act --ratio 0.05 --out edited
says "memorized" tinymem evaluate edited --metrics all
says "golden.json: " tinymem check "$run" --write golden.json
says "0 outside tolerance" tinymem check "$run" --against golden.json
for format in table json csv markdown latex html; do tinymem methods --format $format > listed; test -s listed; done

step "mistakes"
refused "did you mean" tinymem run $recipe --set model.n_layr=3
refused "try --format csv" tinymem report "$run" --out rows.csv
refused ".md or .txt" tinymem report "$run" --out rows.pdf
refused "expected --device" tinymem evaluate "$run/checkpoint" --device tpu
refused "a column that is compared" tinymem check "$run" --against golden.json --tolerance 'memorised_*=0.1'
refused "for --column to read" tinymem evaluate "$run/checkpoint" --column words
refused "found none" tinymem mitigate nowhere --method act

step "a method of one's own"
says "mine.py" tinymem new method mine
says "mine" tinymem methods --plugin mine.py

step "the README's commands, which ran beside all this"
wait "$readme" || { cat readme.log >&2; exit 1; }
cat readme.log

echo "the first session went well"
