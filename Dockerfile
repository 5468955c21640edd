# The program on distroless Debian: glibc and libgcc, no shell, not root.
#
#   docker build -t rtformer --build-arg COMMIT="$(git rev-parse HEAD)" .
#   docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/data" rtformer segment photos -o out

# Debian 12, as below, so that the program finds the glibc that it was linked with.
FROM rust:1.89-bookworm AS build
WORKDIR /src
COPY . .
# The context has no git history. build.rs reads the commit from the file that `cargo package` writes.
ARG COMMIT=
RUN if [ -n "$COMMIT" ]; then printf '{"git": {"sha1": "%s"}}' "$COMMIT" > .cargo_vcs_info.json; fi
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    cargo build --locked --profile dist --all-features --bin rtformer && cp target/dist/rtformer /rtformer

FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /rtformer /usr/local/bin/rtformer
WORKDIR /data
ENTRYPOINT ["/usr/local/bin/rtformer"]
CMD ["--help"]
