// What the node agent left behind about this node's pods, for the time when it cannot be asked (cni/plugin/cache.ts writes it and says what
// it means). It lies beside the executable and not in /var/run, which is empty after a reboot: just then it is needed.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

const (
	cacheVersion  = 1
	maxCacheBytes = 16 << 20
)

type cache struct {
	Version      int               `json:"version"`
	AskTimeoutMs int64             `json:"askTimeoutMs"`
	Excluded     []string          `json:"excludeNamespaces"`
	Namespaces   map[string]string `json:"namespaces"`
	Pods         map[string]string `json:"pods"`
	// Why there is none.
	problem string
}

// verdict says what happens to a pod that the agent cannot be asked about. The reason is for people.
type verdict struct {
	closed bool
	reason string
}

func stateFolder() string {
	path, err := os.Executable()
	if err != nil {
		path = "/opt/cni/bin/istio-cni"
	}
	return filepath.Join(filepath.Dir(path), "istio-cni.d")
}

func loadCache(folder string) *cache {
	path := filepath.Join(folder, "cache.json")
	text, err := readPrivate(path, maxCacheBytes)
	if err != nil {
		return &cache{problem: err.Error()}
	}
	loaded := &cache{}
	if err := json.Unmarshal(text, loaded); err != nil {
		return &cache{problem: fmt.Sprintf("%s is damaged: %v", path, err)}
	}
	if loaded.Version != cacheVersion {
		return &cache{problem: fmt.Sprintf("%s has version %d, and this plugin reads %d", path, loaded.Version, cacheVersion)}
	}
	return loaded
}

func (c *cache) patience() time.Duration {
	patience := time.Duration(c.AskTimeoutMs) * time.Millisecond
	if patience <= 0 {
		return defaultPatience
	}
	if patience > longestPatience {
		return longestPatience
	}
	return patience
}

// decide: a pod that the cache knows as outside of the mesh may start, and so may all pods of namespaces that are never in it. What the
// cache does not know may be in the mesh: a namespace that was made and labelled while the agent was away, a cache that is damaged.
func (c *cache) decide(config *netConfig, request *request) verdict {
	namespace := request.podNamespace
	switch {
	case namespace == config.PodNamespace || namespace == "kube-system" || contains(config.ExcludeNamespaces, namespace) || contains(c.Excluded, namespace):
		return verdict{false, "namespace " + namespace + " never waits for the mesh"}
	case c.problem != "":
		return verdict{true, c.problem}
	}
	switch c.Pods[request.podUID] {
	case "in":
		return verdict{true, "the pod belongs to the mesh"}
	case "out":
		return verdict{false, "the pod does not belong to the mesh"}
	}
	switch c.Namespaces[namespace] {
	case "in":
		return verdict{true, "namespace " + namespace + " belongs to the mesh"}
	case "out":
		return verdict{false, "namespace " + namespace + " does not belong to the mesh"}
	case "may":
		return verdict{true, "pods of namespace " + namespace + " may belong to the mesh"}
	}
	return verdict{true, "this node does not know namespace " + namespace + " yet"}
}

// readPrivate refuses what somebody else than root could have written: whoever can write here decides who leaves the mesh.
func readPrivate(path string, limit int64) ([]byte, error) {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s is not there", path)
	}
	if err != nil {
		return nil, err
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !info.Mode().IsRegular() || !ok || owner.Uid != uint32(os.Geteuid()) || info.Mode().Perm()&0o022 != 0 {
		return nil, fmt.Errorf("%s is no file that only root can write", path)
	}
	if info.Size() > limit {
		return nil, fmt.Errorf("%s is larger than %d bytes", path, limit)
	}
	return os.ReadFile(path)
}
