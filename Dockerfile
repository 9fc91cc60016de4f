# The static binary on a base that holds nothing but a CA bundle and a user.
#
#   make image                                  with the base images below
#   make image BUILD_IMAGE=... RUNTIME_IMAGE=...
ARG BUILD_IMAGE=docker.io/library/rust:1-bookworm
ARG RUNTIME_IMAGE=gcr.io/distroless/static-debian12:nonroot

FROM ${BUILD_IMAGE} AS build
WORKDIR /register-trust
# The dependencies are a layer of their own, which lasts until Cargo.lock changes.
COPY Cargo.toml Cargo.lock ./
COPY deploy/dev/cargo.sh deploy/dev/
RUN mkdir src && printf '//! For the dependencies alone.\nfn main() {}\n' >src/main.rs \
    && deploy/dev/cargo.sh build --release --locked
COPY src src
COPY sql sql
COPY doc doc
RUN touch src/main.rs \
    && deploy/dev/cargo.sh build --release --locked \
    && mv target/*/release/register-trust /register-trust/register-trust

FROM ${RUNTIME_IMAGE}
LABEL org.opencontainers.image.title="register-trust" \
      org.opencontainers.image.description="Register one trust on a FLIP hub and hand over its kit" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /register-trust/register-trust /usr/local/bin/register-trust
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/register-trust"]
