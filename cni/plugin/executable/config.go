// What a container runtime hands over: the plugin's part of the conflist on stdin, and who the pod is in the environment.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
)

const (
	newestVersion = "1.1.0"
	// Of a config without a version (CNI specification 0.1.0, which did not ask for one).
	oldestVersion  = "0.1.0"
	maxConfigBytes = 4 << 20
)

var supportedVersions = []string{"0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", newestVersion}

// netConfig has Istio's field names (istio, cni/pkg/plugin), so either agent can install either plugin.
type netConfig struct {
	CNIVersion        string          `json:"cniVersion"`
	AgentRunDir       string          `json:"cni_agent_run_dir"`
	AmbientEnabled    *bool           `json:"ambient_enabled"`
	ExcludeNamespaces []string        `json:"exclude_namespaces"`
	PodNamespace      string          `json:"pod_namespace"`
	PrevResult        json.RawMessage `json:"prevResult"`
}

func readConfig(stdin io.Reader) (*netConfig, *cniError) {
	text, err := io.ReadAll(io.LimitReader(stdin, maxConfigBytes+1))
	if err != nil {
		return nil, failure(codeInput, "reading the network configuration from stdin: "+err.Error(), "")
	}
	if len(text) > maxConfigBytes {
		return nil, failure(codeInput, fmt.Sprintf("the network configuration on stdin is larger than %d bytes", maxConfigBytes), "")
	}
	if len(bytes.TrimSpace(text)) == 0 {
		return nil, failure(codeDecode, "no network configuration on stdin", "a container runtime passes this plugin's part of the conflist there")
	}
	config := &netConfig{}
	if err := json.Unmarshal(text, config); err != nil {
		return nil, failure(codeDecode, "the network configuration on stdin is not what it should be: "+err.Error(),
			"look at the istio-cni entry of the first file in the node's folder of CNI configurations (/etc/cni/net.d)")
	}
	if config.CNIVersion == "" {
		config.CNIVersion = oldestVersion
	}
	if !contains(supportedVersions, config.CNIVersion) {
		return nil, failure(codeVersion, fmt.Sprintf("cniVersion %q is not supported", config.CNIVersion),
			"supported are "+strings.Join(supportedVersions, ", "))
	}
	if config.AgentRunDir == "" {
		config.AgentRunDir = defaultRunDir
	}
	if !strings.HasPrefix(config.AgentRunDir, "/") {
		return nil, failure(codeConfig, fmt.Sprintf("cni_agent_run_dir %q is no absolute path", config.AgentRunDir), "").answering(config)
	}
	return config, nil
}

const defaultRunDir = "/var/run/istio-cni"

type versions struct {
	CNIVersion string   `json:"cniVersion"`
	Supported  []string `json:"supportedVersions"`
}

// versionReport answers whatever it is asked with: the runtime must find out somehow what we speak.
func versionReport(stdin io.Reader) versions {
	var asked struct {
		CNIVersion string `json:"cniVersion"`
	}
	text, _ := io.ReadAll(io.LimitReader(stdin, maxConfigBytes))
	if json.Unmarshal(text, &asked) != nil || !contains(supportedVersions, asked.CNIVersion) {
		asked.CNIVersion = newestVersion
	}
	return versions{asked.CNIVersion, supportedVersions}
}

// request says who the pod is.
type request struct {
	netns, podName, podNamespace, podUID string
}

const (
	maxName    = 253
	longestUID = 64
)

// readRequest names every variable that is missing, at once.
func readRequest(environ func(string) string, required ...string) (*request, *cniError) {
	var missing []string
	for _, name := range required {
		if environ(name) == "" {
			missing = append(missing, name)
		}
	}
	if len(missing) > 0 {
		return nil, failure(codeEnvironment, "not set: "+strings.Join(missing, ", "), "a container runtime sets these for each call")
	}
	arguments, err := parseArguments(environ("CNI_ARGS"))
	if err != nil {
		return nil, failure(codeEnvironment, "CNI_ARGS: "+err.Error(), "expected K8S_POD_NAMESPACE=…;K8S_POD_NAME=…")
	}
	read := &request{environ("CNI_NETNS"), arguments["K8S_POD_NAME"], arguments["K8S_POD_NAMESPACE"], arguments["K8S_POD_UID"]}
	if (read.podName == "") != (read.podNamespace == "") {
		return nil, failure(codeEnvironment, "CNI_ARGS: K8S_POD_NAME and K8S_POD_NAMESPACE must be given together", "")
	}
	if len(read.podName) > maxName || len(read.podNamespace) > maxName || len(read.podUID) > longestUID {
		return nil, failure(codeEnvironment, "CNI_ARGS: a pod's name, namespace or UID is too long", "")
	}
	return read, nil
}

func parseArguments(text string) (map[string]string, error) {
	arguments := map[string]string{}
	for _, pair := range strings.Split(text, ";") {
		if pair == "" {
			continue
		}
		name, value, found := strings.Cut(pair, "=")
		if !found {
			return nil, fmt.Errorf("%q is no NAME=VALUE", pair)
		}
		arguments[name] = value
	}
	return arguments, nil
}

func contains(list []string, wanted string) bool {
	for _, item := range list {
		if item == wanted {
			return true
		}
	}
	return false
}
