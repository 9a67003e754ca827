#!/usr/bin/env bash
# Checks what the build left and says what a real deployment would do with it. It changes nothing.
set -euo pipefail

environment=${CI_JOB_NAME:?run this in a CI job}
environment=${environment#deploy-}

if ! [ -f artifacts/build-info ]; then
  echo "artifacts/build-info is missing: the build job left nothing to deploy" >&2
  exit 1
fi

commit=$(sed -n 's/^commit=//p' artifacts/build-info)
expected=$(sed -n 's/^sha256=//p' artifacts/build-info)
actual=$(sha256sum artifacts/application.tar.gz | cut -d ' ' -f 1)

if [ "$commit" != "$CI_COMMIT_SHA" ]; then
  echo "The artifact was built from $commit, and this job deploys $CI_COMMIT_SHA" >&2
  exit 1
fi
if [ "$actual" != "$expected" ]; then
  echo "artifacts/application.tar.gz is not what the build job made: sha256 $actual, expected $expected" >&2
  exit 1
fi

echo "Would deploy commit $commit (sha256 $actual) to $environment."

# ECS gives a task with a role this address of its credentials; simulated tasks have none.
if [ -n "${AWS_CONTAINER_CREDENTIALS_RELATIVE_URI:-}" ] && command -v aws > /dev/null; then
  echo "As: $(aws sts get-caller-identity --query Arn --output text)"
else
  echo "As: no AWS credentials here, so nobody could deploy from this task."
fi
