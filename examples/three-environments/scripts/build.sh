#!/usr/bin/env bash
# Builds the application: here, one archive of the sources and a note of what it was built from.
set -euo pipefail

rm -rf artifacts
mkdir -p artifacts

# What the job built before, and git's own files, are no part of the application.
tar --create --gzip --exclude=./artifacts --exclude=./.git --file=artifacts/application.tar.gz .

{
  echo "commit=${CI_COMMIT_SHA:?run this in a CI job}"
  echo "job=${CI_JOB_NAME:?}"
  echo "architecture=$(uname -m)"
  echo "sha256=$(sha256sum artifacts/application.tar.gz | cut -d ' ' -f 1)"
} > artifacts/build-info

echo "Built artifacts/application.tar.gz:"
cat artifacts/build-info
