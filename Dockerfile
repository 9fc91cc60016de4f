# The static binary on a base that holds nothing but a CA bundle and a user.
#
#   make image            from the base images below
#   make release-image    from the base images that BUILD_IMAGE and RUNTIME_IMAGE name by their digests,
#                         name@sha256:...: a tag can be another image tomorrow
#
# The build stage needs a package source for its newest OpenSSL and glibc. Docker's cache would keep old
# ones, so both targets build without it.
#
# An image cannot forbid core dumps. The program does; 'docker run --ulimit core=0' does it once more.
ARG BUILD_IMAGE=docker.io/library/rust:1-bookworm
ARG RUNTIME_IMAGE=gcr.io/distroless/static-debian12:nonroot

FROM ${BUILD_IMAGE} AS build
WORKDIR /register-trust
COPY . .
ARG ALLOW_OPENSSL
ARG ALLOW_GLIBC
ARG ALLOW_ZLIB
ARG ALLOW_ZSTD
RUN mv "$(deploy/dev/ship.sh --upgrade)" /register-trust/register-trust

FROM ${RUNTIME_IMAGE}
LABEL org.opencontainers.image.title="register-trust" \
      org.opencontainers.image.description="Register one trust on a FLIP hub and hand over its kit" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /register-trust/register-trust /usr/local/bin/register-trust
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/register-trust"]
