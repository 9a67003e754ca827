# What there is to do with this repository. Each target sets up what it needs.

.PHONY: help setup policies build agent dist demo test lint format bench clean

help:
	@echo "make demo     set up what is missing, build, and rehearse the article's pipeline"
	@echo "make test     set up, and run every test"
	@echo "make agent    build the agent as one static executable for task images"
	@echo "make dist     make a release: an archive and a Debian package in target/dist"
	@echo "make bench    set up, and measure against what we are compared to"
	@echo "make lint     formatting and clippy, warnings as errors"
	@echo "make format   format the Rust sources"

setup:
	@scripts/setup

policies: setup
	@scripts/build-plugins

build: setup
	@echo "==> building the driver, the agent and the simulator (a first build takes some minutes)"
	@cargo build --workspace --locked

agent: setup
	@scripts/build-agent

dist: setup
	@scripts/dist

demo: policies build
	@scripts/demo

test: policies build
	@scripts/test

lint:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cd plugins && cargo fmt --all --check
	cd plugins && cargo clippy --workspace --all-targets --locked -- -D warnings

format:
	cargo fmt --all
	cd plugins && cargo fmt --all

bench: policies
	@scripts/bench

clean:
	cargo clean
	cd plugins && cargo clean
