# The static binary on a base that holds nothing but a CA bundle and a user.
#
#   make image                                  with the base images below
#   make image BUILD_IMAGE=... RUNTIME_IMAGE=...
ARG BUILD_IMAGE=docker.io/library/rust:1-bookworm
ARG RUNTIME_IMAGE=gcr.io/distroless/static-debian12:nonroot

FROM ${BUILD_IMAGE} AS build
WORKDIR /register-trust
# As the Makefile does, but for the paths: nothing of a home folder is in here.
ENV OPENSSL_STATIC=1 \
    RUSTFLAGS="-Ctarget-feature=+crt-static --cfg=getrandom_backend=\"linux_getrandom\""
# The dependencies are a layer of their own, which lasts until Cargo.lock changes.
COPY Cargo.toml Cargo.lock ./
RUN mkdir src && printf '//! For the dependencies alone.\nfn main() {}\n' >src/main.rs \
    && cargo build --release --locked --target "$(rustc -vV | sed -n 's/^host: //p')"
COPY src src
COPY sql sql
COPY doc doc
RUN touch src/main.rs \
    && cargo build --release --locked --target "$(rustc -vV | sed -n 's/^host: //p')" \
    && mv target/*/release/register-trust /register-trust/register-trust

FROM ${RUNTIME_IMAGE}
LABEL org.opencontainers.image.title="register-trust" \
      org.opencontainers.image.description="Register one trust on a FLIP hub and hand over its kit" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /register-trust/register-trust /usr/local/bin/register-trust
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/register-trust"]
