# One target for each image: docker build --target ztunnel -t warren/ztunnel:0.1.0 .
#
# What lies in an image comes from the lists in images/ and from the lock files, by the code that scripts/images runs, so both ways give the
# same files; a test holds the users and entry points below against images/components.json. The two images named here only build: nothing of
# them is copied into a target, whose content package-lock.json and images/debian.json pin by digest. Whoever wants the builders pinned too
# gives them with a digest: --build-arg NODE_IMAGE=node:26-bookworm-slim@sha256:…
ARG NODE_IMAGE=node:26-bookworm-slim
ARG GO_IMAGE=golang:1.26-bookworm

FROM ${GO_IMAGE} AS go

FROM ${NODE_IMAGE} AS build
COPY --from=go /usr/local/go /usr/local/go
ENV PATH=/usr/local/go/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
WORKDIR /src
COPY package.json package-lock.json .npmrc ./
RUN npm ci --ignore-scripts --no-audit --no-fund && cp package-lock.json node_modules/.warren-lock
COPY . .
ARG TARGETARCH=amd64
RUN scripts/images --trees /out --test --arch "$TARGETARCH"

FROM scratch AS base
COPY --from=build /out/root /
COPY --from=build /out/node /
ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin
WORKDIR /

FROM base AS istiod
COPY --from=build /out/istiod/dependencies /
COPY --from=build /out/istiod/program /
USER 1337:1337
ENTRYPOINT ["/usr/local/bin/node", "--disable-sigusr1", "/app/istiod-lite/main.js"]
CMD ["discovery"]

FROM base AS ztunnel
COPY --from=build /out/ztunnel/dependencies /
COPY --from=build /out/ztunnel/program /
USER 0:1337
ENTRYPOINT ["/usr/local/bin/node", "--disable-sigusr1", "--max-semi-space-size=2", "/app/ztunnel/main.js"]
CMD ["proxy", "ztunnel"]

FROM base AS cni
COPY --from=build /out/cni/tools /
COPY --from=build /out/cni/dependencies /
COPY --from=build /out/cni/program /
USER 0:0
ENTRYPOINT ["/usr/local/bin/node", "--disable-sigusr1", "/app/cni/main.js"]

FROM base AS waypoint
COPY --from=build /out/waypoint/dependencies /
COPY --from=build /out/waypoint/program /
USER 1337:1337
ENTRYPOINT ["/usr/local/bin/node", "--disable-sigusr1", "/app/waypoint/main.js"]
CMD ["proxy", "waypoint"]

FROM base AS meshctl
COPY --from=build /out/meshctl/dependencies /
COPY --from=build /out/meshctl/program /
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/node", "--disable-sigusr1", "/app/meshctl/main.js"]
CMD ["--help"]

# For tests.
FROM base AS echo
COPY --from=build /out/echo/tools /
COPY --from=build /out/echo/dependencies /
COPY --from=build /out/echo/program /
USER 1338:1338
ENTRYPOINT ["/usr/local/bin/node", "--disable-sigusr1", "/app/playground/programs/echo.js"]
