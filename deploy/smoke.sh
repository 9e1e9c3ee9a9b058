#!/usr/bin/env bash
# The acceptance checks, against a running chatd in dev mode: only local Ollama is registered.
#
#   deploy/smoke.sh [URL] MODEL          or CHATD_URL=... SMOKE_MODEL=... deploy/smoke.sh
#
# URL is chatd's (default http://127.0.0.1:3220), MODEL one that its Ollama has. Needs bash and
# curl. Prints a line per check and, last, how many passed; exits 1 unless all that apply did.
# Where more than Ollama is registered, the checks that this makes meaningless are named and left
# out, and so is no call that would be billed made.
set -euo pipefail

case $# in
    0) url=${CHATD_URL:-http://127.0.0.1:3220} model=${SMOKE_MODEL:-} ;;
    1) url=${CHATD_URL:-http://127.0.0.1:3220} model=$1 ;;
    2) url=$1 model=$2 ;;
    *) model= ;;
esac
if [[ -z $model ]]; then
    echo "usage: $0 [URL] MODEL   (MODEL: one that the Ollama behind chatd has)" >&2
    exit 2
fi
url=${url%/}

passed=0
failed=0
skipped=0
status=
body=

# call PATH [BODY]: sets status and body. Line breaks go, so that a pattern sees one line.
call() {
    local reply options=(--silent --show-error --noproxy '*' --max-time 200)
    if (($# > 1)); then
        options+=(--header 'Content-Type: application/json' --data-binary "$2")
    fi
    if ! reply=$(curl "${options[@]}" --write-out '\n%{http_code}' "$url$1"); then
        echo "no chatd answers at $url$1; start one with: make up" >&2
        exit 1
    fi
    status=${reply##*$'\n'}
    body=$(tr -d '\r\n' <<<"${reply%$'\n'*}")
}

# chat MODEL: one short question. The model's name may hold what JSON would have to escape.
chat() {
    local name=${1//\\/\\\\}
    name=${name//\"/\\\"}
    call /v1/chat '{"model": "'"$name"'", "max_tokens": 24, "temperature": 0, "messages":
        [{"role": "user", "content": "Say hello in one short sentence."}]}'
}

# has NAME PATTERN: whether a member NAME holds what the extended regular expression matches.
# Inside a JSON text the quotes of "NAME" would be escaped, so an answer's prose cannot match.
has() {
    grep -Eq "(^|[{,[:space:]])\"$1\"[[:space:]]*:[[:space:]]*$2" <<<"$body"
}

# text VALUE: the pattern of a JSON string that is exactly VALUE.
text() {
    printf '"%s"' "$(sed 's/[][\\.^$*+?(){}|]/\\&/g' <<<"$1")"
}

ok() {
    passed=$((passed + 1))
    printf 'ok    %s\n' "$1"
}

fail() {
    failed=$((failed + 1))
    printf 'FAIL  %s\n      expected %s\n      got %s %.600s\n' "$1" "$2" "$status" "$body"
}

skip() {
    skipped=$((skipped + 1))
    printf 'n/a   %s: does not apply, %s\n' "$1" "$2"
}

# An answer in full: text, both token counts and the time upstream.
is_answer() {
    [[ $status == 200 ]] &&
        has content '"[^"]' && has input_tokens '[1-9]' && has output_tokens '[1-9]' &&
        has latency_ms '[0-9]' && has provider '"ollama"'
}

registered() {
    has name "\"$1\""
}

title='1 the provider list shows exactly ollama, the default'
call /v1/chat/providers
others=
for provider in ollama_cloud openrouter opencode kimi; do
    if registered "$provider"; then others+=" $provider"; fi
done
if [[ -n $others ]]; then
    skip "$title" "registered as well:$others"
elif [[ $status == 200 ]] && has default '"ollama"' && registered ollama &&
    [[ $(grep -Eo '"lanes"[[:space:]]*:' <<<"$body" | wc -l) -eq 1 ]]; then
    ok "$title"
else
    fail "$title" '200 with "default": "ollama" and one provider, ollama'
fi

title="2 the bare model $model answers with content, token counts and latency"
chat "$model"
if is_answer; then
    ok "$title"
else
    fail "$title" '200 with content, input_tokens, output_tokens, latency_ms, provider ollama'
fi

title="3 ollama/$model reaches Ollama as $model"
chat "ollama/$model"
if is_answer && has model "$(text "ollama/$model")" && has upstream_model "$(text "$model")"; then
    ok "$title"
else
    fail "$title" "200 with model ollama/$model and upstream_model $model"
fi

title="4 $model:cloud without Ollama Cloud is refused, not sent elsewhere"
if [[ $others == *ollama_cloud* ]]; then
    skip "$title" 'Ollama Cloud is registered and would bill it'
else
    chat "$model:cloud"
    if [[ $status == 404 ]] && has code '"provider_not_registered"'; then
        ok "$title"
    else
        fail "$title" '404 provider_not_registered'
    fi
fi

title="5 unknown/$model goes whole to Ollama, which does not have it"
chat "unknown/$model"
if [[ $status == 502 ]] && has code '"upstream_not_found"' && has upstream_status 404; then
    ok "$title"
else
    fail "$title" '502 upstream_not_found with upstream_status 404'
fi

title='6 a request without model is refused'
call /v1/chat '{"messages": [{"role": "user", "content": "hello"}]}'
if [[ $status == 400 ]] && has code '"invalid_request"' && has param '"model"'; then
    ok "$title"
else
    fail "$title" '400 invalid_request with param model'
fi

applied=$((passed + failed))
if ((skipped)); then echo "$skipped of 6 checks did not apply: this chatd is not in dev mode"; fi
echo "$passed/$applied"
((failed == 0))
