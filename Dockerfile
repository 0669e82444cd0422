# One target for each image: docker build --target ztunnel -t warren/ztunnel:0.1.0 .
#
# What lies in an image comes from the lists in images/ and from the lock files, by the code that scripts/images runs, so both ways give the
# same files; a test holds the users and entry points below against images/components.json. The two images named here only build: nothing of
# them is copied into a target, whose content package-lock.json and images/debian.json pin by digest. Whoever wants the builders pinned too
# gives them with a digest: --build-arg NODE_IMAGE=node:26-bookworm-slim@sha256:…
ARG NODE_IMAGE=node:26-bookworm-slim
ARG GO_IMAGE=golang:1.26-bookworm
ARG VERSION=0.1.0

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
ARG VERSION
LABEL org.opencontainers.image.version="$VERSION"

FROM base AS istiod
LABEL org.opencontainers.image.title="Warren istiod-lite" org.opencontainers.image.description="control plane: translates the cluster for the proxies, and their certificate authority"
COPY --from=build /out/istiod/dependencies /
COPY --from=build /out/istiod/program /
USER 1337:1337
ENTRYPOINT ["/usr/local/bin/node", "--disable-sigusr1", "/app/istiod-lite/main.js"]
CMD ["discovery"]

FROM base AS ztunnel
LABEL org.opencontainers.image.title="Warren ztunnel" org.opencontainers.image.description="the node's proxy: carries the traffic of all enrolled pods through mutual TLS"
COPY --from=build /out/ztunnel/dependencies /
COPY --from=build /out/ztunnel/program /
USER 0:1337
ENTRYPOINT ["/usr/local/bin/node", "--disable-sigusr1", "--max-semi-space-size=2", "--no-parallel-scavenge", "--no-memory-reducer", "--incremental-marking-soft-trigger=25", "--no-allocation-site-pretenuring", "--expose-gc", "/app/ztunnel/main.js"]
CMD ["proxy", "ztunnel"]

FROM base AS cni
LABEL org.opencontainers.image.title="Warren node agent" org.opencontainers.image.description="enrols the node's pods: rules, sockets, the CNI plugin"
COPY --from=build /out/cni/tools /
COPY --from=build /out/cni/dependencies /
COPY --from=build /out/cni/program /
USER 0:0
ENTRYPOINT ["/usr/local/bin/node", "--disable-sigusr1", "/app/cni/main.js"]

FROM base AS waypoint
LABEL org.opencontainers.image.title="Warren waypoint" org.opencontainers.image.description="HTTP proxy of a namespace: routes, policies, retries"
COPY --from=build /out/waypoint/dependencies /
COPY --from=build /out/waypoint/program /
USER 1337:1337
ENTRYPOINT ["/usr/local/bin/node", "--disable-sigusr1", "--max-semi-space-size=8", "--single-threaded-gc", "/app/waypoint/main.js"]
CMD ["proxy", "waypoint"]

FROM base AS meshctl
LABEL org.opencontainers.image.title="Warren meshctl" org.opencontainers.image.description="the command line, for jobs in a cluster"
COPY --from=build /out/meshctl/dependencies /
COPY --from=build /out/meshctl/program /
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/node", "--disable-sigusr1", "/app/meshctl/main.js"]
CMD ["--help"]

# For tests.
FROM base AS echo
LABEL org.opencontainers.image.title="Warren echo" org.opencontainers.image.description="server and client for tests"
COPY --from=build /out/echo/tools /
COPY --from=build /out/echo/dependencies /
COPY --from=build /out/echo/program /
USER 1338:1338
ENTRYPOINT ["/usr/local/bin/node", "--disable-sigusr1", "/app/playground/programs/echo.js"]
