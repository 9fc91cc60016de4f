# register-trust: build, try, test. 'make help' lists what there is.
#
# A trust's identity comes from TRUST_<n>_NAME, TRUST_<n>_CODE and TRUST_<n>_REGION, from the
# environment or the command line, and is never evaluated by make or a shell.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PROGRAM := target/release/register-trust
HUB := .hub
KITS := kits

TRUST_1_NAME ?= Guy's and St Thomas' NHS Foundation Trust
TRUST_1_CODE ?= GSTT
TRUST_1_REGION ?= London
TRUST_2_NAME ?= King's College Hospital NHS Foundation Trust
TRUST_2_CODE ?= KCH
TRUST_2_REGION ?= London
TRUST_3_NAME ?= Leeds Teaching Hospitals NHS Trust
TRUST_3_CODE ?= LTHT
TRUST_3_REGION ?= North East and Yorkshire

# A variable's own text as one word of the shell.
quoted = '$(subst ','\'',$(value $(1)))'

.PHONY: help build static test-reproducible lint test hub-start hub-stop clean

help: ## list the targets
	@echo 'register-trust-<n>   register trust <n>, its kit goes to $(KITS)/trust-<n>.json'
	@echo 'sync-trust-kit-<n>   the kit of a registered trust, without credentials'
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 21

# Trust <n> on the hub at DB_HOST, or on the embedded development hub.
register-trust-%: $(PROGRAM)
	@deploy/register.sh $(HUB) $(KITS) '$*' $(call quoted,TRUST_$*_NAME) \
	    --code=$(call quoted,TRUST_$*_CODE) --region=$(call quoted,TRUST_$*_REGION)

sync-trust-kit-%: $(PROGRAM)
	@deploy/register.sh $(HUB) $(KITS) '$*' $(call quoted,TRUST_$*_NAME) --require-existing

build: $(PROGRAM) ## build the program

$(PROGRAM): Cargo.toml Cargo.lock $(wildcard src/* sql/*)
	@deploy/need.sh build
	cargo build --release --locked
	@touch $@

# Paths of this machine are kept out of the binary: two builds give the same bytes.
HOST_TARGET = $(shell rustc -vV | sed -n 's/^host: //p')
CARGO_DIR = $(or $(CARGO_HOME),$(HOME)/.cargo)
STATIC = target/$(HOST_TARGET)/release/register-trust

static: ## a fully static binary, for an image or a chroot that holds nothing else
	@deploy/need.sh build
	flags=$$(printf '\037%s' -Ctarget-feature=+crt-static \
	    '--remap-path-prefix=$(CURDIR)=/register-trust' '--remap-path-prefix=$(CARGO_DIR)=/cargo') && \
	CARGO_ENCODED_RUSTFLAGS="$${flags#?}" OPENSSL_STATIC=1 \
	    cargo build --release --locked --target $(HOST_TARGET)
	@ls -l $(STATIC)

test-reproducible: ## two static builds from two folders give the same bytes
	@deploy/test-reproducible.sh

lint: ## formatting and lints
	@deploy/need.sh build
	cargo fmt --check
	cargo clippy --release --locked --all-targets -- -D warnings

test: lint ## everything, against a real PostgreSQL
	@deploy/need.sh postgres >/dev/null
	@deploy/need.sh python target/python
	cargo test --release --locked

hub-start: ## start the embedded development hub
	@deploy/hub.sh start $(HUB)

hub-stop: ## stop it
	@deploy/hub.sh stop $(HUB)

clean: ## remove what was built and the development hub; kits stay
	@deploy/hub.sh remove $(HUB)
	@rm -rf target
