// ADD: may this pod start? The agent decides. Where it cannot, the cache that it wrote says whose start would leave the mesh.
package main

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"time"
)

const (
	// Where the agent has not said how long it takes to enrol a pod.
	defaultPatience = 30 * time.Second
	// A kubelet gives up after two minutes, and what it then shows says nothing.
	longestPatience = 100 * time.Second
	// A pod that is not of the mesh is not held up for long by an agent that does not answer.
	outsidersPatience = 5 * time.Second
	// An agent that is being replaced is back within seconds; a failed start costs the pod more than waiting.
	agentReturns = 5 * time.Second
)

// The agent's own pods. They use the node's network, so no runtime should ask for them; a runtime that does must not wait for them to start.
const agentPodPrefix = "istio-cni-node-"

func add(config *netConfig, host host) (any, *cniError) {
	request, problem := readRequest(host.environ, "CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME")
	if problem != nil {
		return nil, problem
	}
	result, ips, problem := readPrevResult(config)
	if problem != nil {
		return nil, problem
	}
	if reason := notAsked(config, request, host); reason != "" {
		fmt.Fprintf(host.stderr, "istio-cni: pod %s/%s is not looked at: %s\n", request.podNamespace, request.podName, reason)
		return result, nil
	}
	cache := loadCache(host.stateFolder)
	verdict := cache.decide(config, request)
	patience := cache.patience()
	if !verdict.closed {
		patience = outsidersPatience
	}
	event, err := json.Marshal(map[string]any{
		"Netns": request.netns, "PodName": request.podName, "PodNamespace": request.podNamespace, "IPs": ips,
	})
	if err != nil {
		return nil, failure(codeInput, err.Error(), "")
	}
	socket := filepath.Join(config.AgentRunDir, "pluginevent.sock")
	answer := askAgent(socket, event, patience, verdict.closed)
	switch {
	case answer.allowed():
		return result, nil
	case answer.refused():
		return nil, failure(codeTryAgain, fmt.Sprintf("the node agent could not take pod %s/%s into the mesh: %s", request.podNamespace, request.podName, answer.text()),
			"kubectl -n istio-system logs ds/istio-cni-node; meshctl status; "+wayOut(host))
	case verdict.closed:
		return nil, failure(codeTryAgain,
			fmt.Sprintf("pod %s/%s waits for the node agent: %s; it would start outside of the mesh: %s", request.podNamespace, request.podName, answer.text(), verdict.reason),
			"is the pod istio-cni-node of this node running? kubectl -n istio-system get pods -o wide; "+wayOut(host))
	default:
		fmt.Fprintf(host.stderr, "istio-cni: pod %s/%s starts without the node agent (%s): %s\n", request.podNamespace, request.podName, answer.text(), verdict.reason)
		return result, nil
	}
}

func wayOut(host host) string {
	return "the way out: meshctl bypass node, or on the node " + filepath.Join(filepath.Dir(host.stateFolder), "istio-cni") + " bypass"
}

// notAsked says why nobody is asked about a pod; empty where somebody is.
func notAsked(config *netConfig, request *request, host host) string {
	switch {
	case config.AmbientEnabled != nil && !*config.AmbientEnabled:
		return "ambient_enabled is false"
	case request.podName == "":
		return "it is no pod of Kubernetes"
	case contains(config.ExcludeNamespaces, request.podNamespace):
		return "its namespace is excluded"
	case request.podNamespace == config.PodNamespace && strings.HasPrefix(request.podName, agentPodPrefix):
		return "it is the node agent's own"
	}
	// Whoever can make root's files on a node needs no bypass.
	if _, err := readPrivate(bypassFile(host.stateFolder), maxName); err == nil {
		return "this node is bypassed (" + bypassFile(host.stateFolder) + ")"
	}
	return ""
}
