#!/bin/sh
# Ask a running server about one picture, with nothing but curl and base64:
#   sh serving/ask.sh http://localhost:8501 mine picture.jpg
# Prints {"predictions": [{"scores": [...], "classes": [...]}]}.
set -eu
url=$1 model=$2 picture=$3
{
    printf '{"signature_name": "bytes", "instances": [{"b64": "'
    base64 <"$picture" | tr -d '\n'
    printf '"}]}'
} | curl --silent --show-error --fail-with-body --data-binary @- "$url/v1/models/$model:predict"
