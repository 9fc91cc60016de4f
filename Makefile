# register-trust: build, try, test. 'make help' lists what there is.
#
# A trust's identity comes from TRUST_<n>_NAME, TRUST_<n>_CODE and TRUST_<n>_REGION: from the
# command line, the environment, or .env.development, .env.production (PROD=true) and .env.<stage>
# (PROD=<stage>). Neither make nor a shell ever evaluates it.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.SUFFIXES:

PROGRAM := target/release/register-trust
HUB_DIR ?= .hub
PREFIX ?= /usr/local
TOOLS ?= target/tools
# What a person sets reaches the recipes through the environment, as it was written: no recipe holds
# its text, where a newline or a quote in it would become a command, and make, which expands what it
# exports, here and in a make below, has nothing left to expand.
$(foreach variable,HUB_DIR KITS KIT_SINK PROD HUB PG PREFIX DESTDIR TOOLS ADVISORY_DB ALLOW_OPENSSL ALLOW_GLIBC ALLOW_ZLIB ALLOW_ZSTD ALLOW_DIRTY $(filter TRUST_%,$(.VARIABLES)),$(eval override export $(variable) := $$(value $(variable))))
MAKEOVERRIDES =
# Nothing of a person's own shell changes what a recipe does.
unexport BASH_ENV CDPATH GREP_OPTIONS POSIXLY_CORRECT
ifneq ($(shell test -d "$${TMPDIR:-/tmp}" && echo yes),yes)
unexport TMPDIR
endif

.PHONY: help register-trusts build static install uninstall release sbom audit image release-image test-image test-reproducible test-audit test-fresh lint test bless prove fuzz bench hub-start hub-stop clean FORCE
# For the targets with a number, which cannot be phony: a file of that name changes nothing.
FORCE: ;

help: ## list the targets
	@echo 'register-trust-<n>   register trust <n>, its kit goes to KITS/trust-<n>.json (KITS=kits)'
	@echo 'sync-trust-kit-<n>   fetch the kit of a registered trust, without credentials'
	@echo 'check-kit-<n>        tell whether the kits of trust <n> in the folder are valid'
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 21

# The program of this machine is needed only where it runs here.
LOCAL = $(if $(PROD)$(HUB),,$(PROGRAM))

# For a program that must be built first: what else is needed, and the steps to tell.
register-trust-% sync-trust-kit-% check-kit-% register-trusts: NEED = $(if $(DB_HOST),,postgres)
register-trust-% sync-trust-kit-% check-kit-% register-trusts: export STEPS = 3

# The scripts refuse what is no number.
number = '$(subst ','\'',$*)'

register-trust-%: FORCE $(LOCAL)
	@deploy/register.sh $(number)

sync-trust-kit-%: FORCE $(LOCAL)
	@deploy/register.sh $(number) --require-existing

check-kit-%: FORCE $(LOCAL)
	@deploy/register.sh $(number) --check-kits

# By number, so that trust 1 gets the first slot. One failure stops no other.
register-trusts: $(LOCAL) ## register every trust that has a name; with -j side by side
	@numbers=$$(deploy/register.sh --numbers) && \
	    $(MAKE) --no-print-directory --keep-going $$(printf 'register-trust-%s ' $$numbers)

# One build for everything: the static binary that cargo.sh makes is what is tested, measured and
# shipped.
HOST_TARGET = $(shell rustc -vV 2>/dev/null | sed -n 's/^host: //p')
CARGO = deploy/dev/live.sh - deploy/dev/cargo.sh
# A long step says which one it is, and how long it takes on two cores the first time.
step = echo '$(if $(STEPS),step $(1) of $(STEPS): )$(2)'

build: $(PROGRAM) ## build the program: a static binary that needs nothing beside it
static: build

$(PROGRAM): Cargo.toml Cargo.lock deploy/dev/cargo.sh doc/help.txt $(wildcard src/* sql/*)
	@deploy/dev/need.sh build $(NEED) >/dev/null
	@$(call step,$(or $(STEP),2),cargo build --release --locked: the static program (about 4 minutes))
	@$(CARGO) build --release --locked
	@mkdir -p $(@D) && cp target/$(HOST_TARGET)/release/register-trust $@.new && mv $@.new $@

SHARE = "$$DESTDIR$$PREFIX"/share
# A distribution's fish looks into /usr/local only where XDG_DATA_DIRS names it, but always here.
FISH_OF_LOCAL = $(if $(filter /usr/local,$(PREFIX)),"$$DESTDIR"/etc/fish/completions/register-trust.fish)

install: $(PROGRAM) ## install the program, its manual page and completions: PREFIX=/usr/local, DESTDIR
	install -D -m 755 $(PROGRAM) "$$DESTDIR$$PREFIX"/bin/register-trust
	install -D -m 644 doc/register-trust.1 $(SHARE)/man/man1/register-trust.1
	install -D -m 644 doc/completions/register-trust.bash $(SHARE)/bash-completion/completions/register-trust
	install -D -m 644 doc/completions/_register-trust $(SHARE)/zsh/site-functions/_register-trust
	for file in $(SHARE)/fish/vendor_completions.d/register-trust.fish $(FISH_OF_LOCAL); do \
	    install -D -m 644 doc/completions/register-trust.fish "$$file" || exit; done

uninstall: ## remove them
	rm -f "$$DESTDIR$$PREFIX"/bin/register-trust $(SHARE)/man/man1/register-trust.1 \
	    $(SHARE)/bash-completion/completions/register-trust $(SHARE)/zsh/site-functions/_register-trust \
	    $(SHARE)/fish/vendor_completions.d/register-trust.fish $(FISH_OF_LOCAL)

release: ## the program, the list of its components and checksums, in target/release-<version>
	@deploy/dev/need.sh build sbom
	@deploy/dev/release.sh

IMAGE ?= register-trust
BUILD_IMAGE ?= docker.io/library/rust:1-bookworm
RUNTIME_IMAGE ?= gcr.io/distroless/static-debian12:nonroot
HUB_IMAGE ?= $(BUILD_IMAGE)
digest = echo '$(1)' | grep -Eq '(^|@)sha256:[0-9a-f]{64}$$' || { echo 'ERROR $(1) is a tag: name the image by its digest, name@sha256:...' >&2; exit 1; }

image: ## build a container image with the static binary and nothing else
	docker build --no-cache --build-arg BUILD_IMAGE=$(BUILD_IMAGE) --build-arg RUNTIME_IMAGE=$(RUNTIME_IMAGE) \
	    --build-arg ALLOW_OPENSSL --build-arg ALLOW_GLIBC --build-arg ALLOW_ZLIB --build-arg ALLOW_ZSTD $(DOCKER_BUILD_OPTIONS) -t $(IMAGE) .

release-image: ## build register-trust:<version> from base images named by digest: BUILD_IMAGE, RUNTIME_IMAGE
	@$(call digest,$(BUILD_IMAGE))
	@$(call digest,$(RUNTIME_IMAGE))
	@version=$$(deploy/dev/release.sh --check) && \
	    $(MAKE) image BUILD_IMAGE=$(BUILD_IMAGE) RUNTIME_IMAGE=$(RUNTIME_IMAGE) IMAGE=$(IMAGE):$$version

test-image: ## run the image on its own, and by compose in a hub's container
	@deploy/dev/test-image.sh $(IMAGE) $(HUB_IMAGE)

test-reproducible: $(TOOLS)/bin/cargo-cyclonedx ## check that releases from two folders have the same bytes
	@deploy/dev/test-reproducible.sh

test-audit: $(TOOLS)/bin/cargo-deny ## check what 'make audit' says, with small databases made for it
	@deploy/dev/test-audit.sh

test-fresh: ## the README's two commands, each twice, on a fresh Debian, as root and as an ordinary user
	@deploy/dev/test-fresh.sh

# Tools of the project's own, built from their sources once, in versions that do not change by
# themselves. cargo-auditable's stands in ship.sh, for an image has no Makefile.
DENY = cargo-deny@0.20.2
CYCLONEDX = cargo-cyclonedx@0.5.9
$(TOOLS)/bin/cargo-deny: TOOL = $(DENY)
$(TOOLS)/bin/cargo-cyclonedx: TOOL = $(CYCLONEDX)
$(TOOLS)/bin/cargo-%: FORCE
	@deploy/dev/need.sh build
	@grep -qs '^"$(subst @, ,$(TOOL)) ' $(TOOLS)/.crates.toml || { \
	    echo 'cargo install $(TOOL) (about 3 minutes)'; \
	    deploy/dev/live.sh - cargo install --locked --root $(TOOLS) $(TOOL); }

sbom: $(TOOLS)/bin/cargo-cyclonedx ## the list of the binary's components (CycloneDX): target/sbom.json
	@deploy/dev/need.sh build sbom
	@deploy/dev/sbom.sh target/sbom.json

audit: $(TOOLS)/bin/cargo-deny ## check licences, sources, duplicates, advisories; ADVISORY_DB=a clone of RustSec's database
	@deploy/dev/audit.sh $(CHECKS)

test: export STEPS = 5
test: STEP = 3
lint test: NEED = postgres tests

lint: ## check the formatting, and run the lints
	@deploy/dev/need.sh build $(NEED) >/dev/null
	cargo fmt --check
	@$(call step,4,cargo clippy (about 2 minutes))
	@$(CARGO) clippy --locked --all-targets -- -D warnings
	shellcheck -x deploy/*.sh deploy/dev/*.sh tests/*/*.sh .ci/run

test: build lint ## run all tests, on a real PostgreSQL; PG=/usr/lib/postgresql/17/bin: on that one
	@deploy/dev/need.sh build $(NEED) >/dev/null
	@$(call step,5,cargo test (about 15 minutes))
	@deploy/dev/test.sh

bless: build ## write tests/frozen again: read the diff as an operator would
	@deploy/dev/need.sh build postgres >/dev/null
	@BLESS=1 $(CARGO) test --locked --test all contract::frozen

# The ends, too: every command of the scripts at which a process can be killed or a disk can be full, and
# every history of the model that can be replayed.
prove: $(PROGRAM) ## run the storms alone, at any size: make prove KILLS=5000 RUNS=200 CASES=50000
	@deploy/dev/need.sh build postgres tests >/dev/null
	@ECS_KILLS=$(or $(ECS_KILLS),all) POWER_CUTS=$(or $(POWER_CUTS),all) REPLAY=$(or $(REPLAY),all) $(CARGO) test --locked --test all -- \
	    prove:: model:: hand_over:: ecs_faults::whichever --nocapture --test-threads=4 --skip doubt::

fuzz: $(PROGRAM) ## attack the program for an hour with random answers of hub and AWS: make fuzz SECONDS=600 W=4
	@deploy/dev/need.sh build tests >/dev/null
	@python3 tests/fuzz/fuzz.py

bench: ## measure, and print the tables of doc/benchmarks.md
	@deploy/dev/need.sh build postgres >/dev/null
	@$(CARGO) bench --quiet --locked --bench table

hub-start: ## start the embedded development hub
	@deploy/dev/hub.sh start "$$HUB_DIR"

hub-stop: ## stop it
	@deploy/dev/hub.sh stop "$$HUB_DIR"

clean: ## remove what was built and the development hub; kits stay
	@deploy/dev/hub.sh remove "$$HUB_DIR"
	@rm -rf target
